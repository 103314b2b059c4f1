"""A client of tei.v1 as its user makes one: code generated from the .proto, in its own process.

::

    FreshClient ──a line of JSON──> subprocess: tei_pb2_grpc, grpc ──> server
                <──a line of JSON──

The server's process has registered the same names already; a second copy could not live there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.paths import ROOT

PROTO = ROOT / "protos" / "bertd" / "tei" / "v1" / "tei.proto"

_SCRIPT = """
import json, sys
import grpc
from google.protobuf import json_format
import tei_pb2, tei_pb2_grpc

def ask(address, service, method, requests):
    rpc = tei_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    kind = getattr(tei_pb2, rpc.input_type.name)
    sent = [json_format.ParseDict(each, kind()) for each in requests]
    answers, code, details, headers = [], 0, "", {}
    with grpc.insecure_channel(address) as channel:
        call = getattr(getattr(tei_pb2_grpc, service + "Stub")(channel), method)
        try:
            if rpc.server_streaming:
                for answer in call(iter(sent), timeout=PATIENCE):
                    answers.append(answer)
            else:
                argument = iter(sent) if rpc.client_streaming else sent[0]
                answer, made = call.with_call(argument, timeout=PATIENCE)
                answers.append(answer)
                headers = dict(made.initial_metadata())
        except grpc.RpcError as error:
            code, details = error.code().value[0], error.details()
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return {
        "answers": [json_format.MessageToDict(each, **options) for each in answers],
        "code": code, "details": details, "headers": headers,
    }

for line in sys.stdin:
    print(json.dumps(ask(**json.loads(line))), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a call gave: answers as their fields by name, then the status."""

    answers: list[dict[str, Any]]
    code: int
    details: str
    headers: dict[str, str]


class FreshClient:
    """Generates the code in a folder, and makes calls with it."""

    def __init__(self, folder: Path) -> None:
        (folder / "tei.proto").write_bytes(PROTO.read_bytes())
        here = ["-I.", "--python_out=.", "--grpc_python_out=.", "tei.proto"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *here], cwd=folder, check=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, address: str, path: str, *requests: dict[str, Any]) -> Heard:
        """Call `Service.Method` with one request, or with all that a stream sends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        service, method = path.split(".")
        call = {"address": address, "service": service, "method": method, "requests": requests}
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return Heard(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
