"""The least that a PyTorch user writes: one embedding, printed as JSON.

Run as a script, ``minimal_torch.py MODEL TEXT THREADS``, so that nothing of bertd is imported.
"""

import json
import sys

import torch
from transformers import AutoModel, AutoTokenizer


def main() -> None:
    """Print the embedding of one text."""
    source, text, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModel.from_pretrained(source).eval()
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        pooled = model(**inputs).last_hidden_state.mean(dim=1)
        vector = torch.nn.functional.normalize(pooled, dim=1)[0]
    sys.stdout.write(json.dumps(vector.tolist()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
