#!/usr/bin/env bash
# cyclonedx-bom 7.5.0 lists an environment that has tokenizers 0.23.3, grpcio 1.81.1 and
# pydantic-core 2.50.4. Does the list hold what is compiled into these wheels: the Rust crates, TLS?
#
# Guess: the crates, yes: both Rust wheels bring a CycloneDX document of them in their metadata
#        (.dist-info/sboms, PEP 770), and the tool writes CycloneDX; of grpcio, a line for BoringSSL.
# Seen:  a line for each wheel, and nothing that is in one. The documents beside them are not read: they
#        name 127 crates of tokenizers and 101 of pydantic-core, and none is in the list.
#        grpcio has no such document at all, though its library has BoringSSL in it. So a list that was
#        made of the environment finds no advisory of a crate or of BoringSSL: keep the wheels' own
#        documents beside it, and watch grpcio's versions by hand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env" && python3 -m venv "$folder/tool"
"$folder/env/bin/pip" install --quiet --no-deps tokenizers==0.23.3 pydantic-core==2.50.4 grpcio==1.81.1
"$folder/tool/bin/pip" install --quiet cyclonedx-bom==7.5.0
"$folder/tool/bin/cyclonedx-py" environment "$folder/env/bin/python" --output-file "$folder/list.json"
"$folder/env/bin/python" - "$folder/list.json" <<'PYTHON'
import importlib.metadata
import json
import sys


def documents(name):
    """The CycloneDX documents that a wheel brings."""
    files = importlib.metadata.files(name)
    return [json.loads(one.read_text()) for one in files if "sboms" in one.parts]


components = json.load(open(sys.argv[1]))["components"]
assert {one["name"].replace("_", "-") for one in components} >= {"tokenizers", "pydantic-core", "grpcio"}
assert not [one for one in components if one["purl"].startswith("pkg:cargo/") or "components" in one]
for name, count in (("tokenizers", 127), ("pydantic-core", 101)):
    (document,) = documents(name)
    crates = [one for one in document["components"] if one["purl"].startswith("pkg:cargo/")]
    print(name, "brings a list of", len(crates), "crates; the list of the environment has none")
    assert len(crates) == count
assert not documents("grpcio")
(library,) = (one for one in importlib.metadata.files("grpcio") if one.name.startswith("cygrpc."))
assert b"BoringSSL" in library.locate().read_bytes()
print("grpcio has BoringSSL in it, and no list")
PYTHON
