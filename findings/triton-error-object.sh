#!/usr/bin/env bash
# tritonclient 2.73.0 over HTTP: a server, or a gateway before it, answers 404 with an error that is
# an object, {"error": {"message": …}}, as OpenAI's and most gateways' errors are. What is told?
#
# Guess: InferenceServerException, whose message shows the object.
# Seen:  InferenceServerException, which cannot be shown: str(error) is a TypeError, so that who
#        prints or logs it is told of strings and dicts, and of nothing that the server said. So all
#        below /v2 has to answer with a string, paths that there are not too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'tritonclient[http]==2.73.0'
"$folder/env/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ERRORS = {"/v2/logging": {"message": "no such path"}, "/v2/trace/setting": "no such path"}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        sent = json.dumps({"error": ERRORS[self.path]}).encode()
        self.send_response(404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = triton.InferenceServerClient(f"127.0.0.1:{server.server_port}")
said = []
for call in (client.get_trace_settings, client.get_log_settings):
    try:
        call()
    except InferenceServerException as error:
        try:
            said.append(str(error))
        except TypeError as failed:
            said.append(f"TypeError: {failed}")
print(said)
assert said == ["[404] no such path", 'TypeError: can only concatenate str (not "dict") to str'], said
PYTHON
