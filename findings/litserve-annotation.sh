#!/usr/bin/env bash
# litserve 0.2.19: does the type that one writes on the argument of `decode_request` change how a
# request is read?
#
# Guess: no. Types of a method that the server itself calls with the decoded body say nothing to it.
# Seen:  yes. litserve hands the type to FastAPI as that of the whole endpoint: without one the body
#        is read as JSON; with `Any`, which type checkers ask for, FastAPI looks for `request` in the
#        query, and every POST with a right body has 422 "query, request: Field required"; with `dict`
#        the same body is taken.
#
# Why it matters: a server that was made to pass a strict type checker starts, says it is healthy,
# and refuses every request; with a health check alone nobody notices.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet litserve==0.2.19 httpx==0.28.1
cat > "$folder/serve.py" <<'PYTHON'
import sys
from typing import Any

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device):
        pass

    if sys.argv[1] == "none":
        def decode_request(self, request):
            return request["input"]
    elif sys.argv[1] == "dict":
        def decode_request(self, request: dict):
            return request["input"]
    else:
        def decode_request(self, request: Any):
            return request["input"]

    def predict(self, x):
        return x

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
PYTHON
cat > "$folder/ask.py" <<'PYTHON'
import socket
import subprocess
import sys
import time

import httpx

for kind, wanted in (("none", 200), ("dict", 200), ("any", 422)):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, sys.argv[1], kind, str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        seen = httpx.post(f"http://127.0.0.1:{port}/predict", json={"input": "text"}, timeout=120)
        print(kind, seen.status_code, seen.text)
        assert seen.status_code == wanted, kind
    finally:
        server.terminate()
        server.wait()
PYTHON
"$folder/env/bin/python" "$folder/ask.py" "$folder/serve.py"
