"""A model in a program with threads, without a server and without asyncio.

python examples/inside_sync.py BUNDLE
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import bertd_server
from bertd_server.inside import RequestError


def main(folder: str) -> None:
    """Load a bundle for feature-extraction, and ask it from several threads."""
    logging.basicConfig(level=logging.INFO)  # bertd logs where the program does: "bertd"
    with bertd_server.open_model_sync(folder, lanes=1) as model:
        # What threads ask at the same time goes into the same batches.
        with ThreadPoolExecutor(4) as threads:
            texts = [f"text number {number}" for number in range(32)]
            vectors = list(threads.map(lambda text: model.embed([text])[0], texts))
        print(f"{len(vectors)} vectors of {len(vectors[0])} dimensions")
        print(f"tokens: {model.count_tokens(['the cat'])}")
        try:
            model.embed(["a text", " "])
        except RequestError as error:
            print(f"refused: {error.field}: {error.reason}")


if __name__ == "__main__":
    main(sys.argv[1])
