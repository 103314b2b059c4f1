#!/usr/bin/env bash
# transformers 5.23.0: where `num_labels` and `id2label` of a config.json disagree, which one holds?
#
# Guess: id2label, since it is the more exact; or an error.
# Seen:  num_labels holds. The names are thrown away and made anew, LABEL_0 to LABEL_49; of the two
#        names that the file gives, neither is left. There is one line on standard error. RXNFP's
#        classifiers, saved by transformers 2, are such folders. A label read from the file belongs
#        to no logit beyond the second.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0
mkdir "$folder/model"
echo '{"model_type": "bert", "num_labels": 50, "id2label": {"0": "ester", "1": "amide"}}' \
  > "$folder/model/config.json"
"$folder/env/bin/python" - "$folder/model" <<'PYTHON'
import sys

from transformers import AutoConfig

config = AutoConfig.from_pretrained(sys.argv[1])
names = [config.id2label[n] for n in range(config.num_labels)]
print(config.num_labels, names[:3])
assert names == [f"LABEL_{n}" for n in range(50)], names
PYTHON
