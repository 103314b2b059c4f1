#!/usr/bin/env bash
# lancedb 0.40.0: its embedding function "openai" has a base_url, for servers that speak as OpenAI
# does. Does it take the names that such servers give their models?
#
# Guess: yes; dim says how long their vectors are, or a first call tells.
# Seen:  no. With dim given, the server is asked and answers, and only then the name, which is not
#        one of OpenAI's, is "Unknown model name", and no row is there. The same server under OpenAI's
#        name is taken; dim is sent as dimensions. So a server of other models has to serve one under
#        OpenAI's name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet lancedb==0.40.0 openai==3.57.0
OPENAI_API_KEY=none "$folder/env/bin/python" - "$folder" <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import lancedb
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector

asked = []


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append((body["model"], body.get("dimensions")))
        data = [{"object": "embedding", "index": i, "embedding": [1.0, 0.0]} for i in range(len(body["input"]))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        sent = json.dumps({"object": "list", "model": body["model"], "data": data, "usage": usage})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent.encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
for name in ("all-MiniLM-L6-v2", "text-embedding-3-small"):
    function = get_registry().get("openai").create(name=name, base_url=url, dim=2, max_retries=0)

    class Row(LanceModel):
        text: str = function.SourceField()
        vector: Vector(2) = function.VectorField()

    table = lancedb.connect(f"{sys.argv[1]}/{name}").create_table("texts", schema=Row)
    try:
        table.add([{"text": "a text"}])
        print(name, "rows:", table.count_rows(), "asked:", asked)
    except Exception as error:
        print(name, "asked:", asked, next(line for line in str(error).splitlines() if "Unknown" in line))
        refused = name
assert refused == "all-MiniLM-L6-v2"
assert asked == [("all-MiniLM-L6-v2", 2), ("text-embedding-3-small", 2)], asked
PYTHON
