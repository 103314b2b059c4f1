#!/usr/bin/env bash
# @grpc/grpc-js 1.14.7: does it leave a server that says NOT_SERVING, where the service config has
# `healthCheckConfig` and `round_robin`, as grpcio and grpc-go do?
#
# Guess: yes, or the setting is refused; the service config is the same document in every language.
# Seen:  it is taken without a word and does nothing: half of the calls go to the
#        server that says NOT_SERVING, for as long as it listens. grpcio 1.81.1 with the same config
#        sends it none. So a drain that only health announces is not seen by Node's clients: what helps
#        them is a server that ends their connections (GOAWAY) before it refuses, and retries.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grpcio==1.81.1 grpcio-health-checking==1.81.1
npm install --silent --no-fund --no-audit --prefix "$folder" @grpc/grpc-js@1.14.7
cat >"$folder/config.json" <<'JSON'
{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "test.Test"}}
JSON
cat >"$folder/ask.cjs" <<'JS'
const grpc = require("@grpc/grpc-js");
const config = require("fs").readFileSync(`${__dirname}/config.json`, "utf8");
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure(), { "grpc.service_config": config });
const same = (bytes) => bytes;
const ask = () => new Promise((done, failed) => client.makeUnaryRequest("/test.Test/Ask", same, same,
  Buffer.from("x"), (error, answer) => (error ? failed(error) : done(answer.toString()))));
(async () => {
  await ask();
  await new Promise((done) => setTimeout(done, 500));  // both are connected
  for (let number = 0; number < 20; number++) console.log(await ask());
  client.close();
})();
JS
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

folder = sys.argv[1]
def serve(name, status):
    """A server that answers with its name, whatever its health says."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Ask": answer}),))
    said = health.HealthServicer()
    said.set("test.Test", status)
    health_pb2_grpc.add_HealthServicer_to_server(said, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


well, one = serve(b"well", health_pb2.HealthCheckResponse.SERVING)
leaving, other = serve(b"leaving", health_pb2.HealthCheckResponse.NOT_SERVING)
target = f"ipv4:{one},{other}"

config = open(f"{folder}/config.json").read()
with grpc.insecure_channel(target, options=[("grpc.service_config", config)]) as channel:
    ask = channel.unary_unary("/test.Test/Ask")
    ask(b"x", timeout=20)
    time.sleep(0.5)
    python = [ask(b"x", timeout=20) for _ in range(20)]
assert set(python) == {b"well"}, python

said = subprocess.run(
    ["node", f"{folder}/ask.cjs", target], check=True, capture_output=True, text=True, timeout=60
).stdout.split()
assert said.count("leaving") == said.count("well") == 10, said
print("as seen: grpcio 20 to the server that serves; grpc-js 10 to each")
well.stop(0)
leaving.stop(0)
PYTHON
