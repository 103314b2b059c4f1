#!/usr/bin/env bash
# transformers 5.23.0 with peft 0.21.0: a model folder with a DoRA adapter beside its weights, opened
# with AutoModel.from_pretrained: is it the model that was trained?
#
# Guess: yes, as with a LoRA adapter, which is applied of its own accord; or an error.
# Seen:  no. A and B are loaded, and the magnitude of each layer is not: the file's name for it is
#        "unexpected" in the report of the load, the module's own "missing", and it is made anew from
#        the base's weights, so that what training changed in it is lost. Opened with peft's own
#        from_pretrained the folder is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.0
"$folder/env/bin/python" - "$folder/model" 2> /dev/null <<'PYTHON'
import sys

import peft
import torch
from transformers import AutoModel, BertConfig, BertModel


def magnitude(model):
    """The mean of the only vector of magnitudes."""
    (found,) = [p for name, p in model.named_parameters() if "magnitude" in name]
    return float(found.mean())


torch.manual_seed(0)
sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
config = BertConfig(vocab_size=30, num_hidden_layers=1, **sizes)
base = BertModel(config)
base.save_pretrained(sys.argv[1])
adapter = peft.LoraConfig(r=2, target_modules=["query"], use_dora=True, init_lora_weights=False)
trained = peft.get_peft_model(base, adapter)
for name, parameter in trained.named_parameters():
    if "magnitude" in name:
        parameter.data *= 3
trained.save_pretrained(sys.argv[1])

untouched = BertModel(config)
untouched.load_state_dict({k: v for k, v in AutoModel.from_pretrained(sys.argv[1]).state_dict().items()
                           if "lora" not in k}, strict=False)
through_peft = peft.PeftModel.from_pretrained(untouched, sys.argv[1])
opened = AutoModel.from_pretrained(sys.argv[1])
values = [round(magnitude(each), 4) for each in (trained, through_peft, opened)]
print("trained, by peft, by transformers:", values)
assert values[0] == values[1], values
assert values[2] < 0.7 * values[0], values
PYTHON
