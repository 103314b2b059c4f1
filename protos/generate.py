"""Generates the Python code of every .proto file, beside it.

``python protos/generate.py [OUTPUT]`` writes below OUTPUT instead (the test of freshness does).
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SCRIPTS = Path(sys.executable).parent
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def includes() -> list[str]:
    """Folders in which imports of the .proto files are found."""
    google_protobuf = files("grpc_tools") / "_proto"
    google_rpc = Path(status_pb2.__file__).parents[2]
    return [f"-I{ROOT}", f"-I{google_protobuf}", f"-I{google_rpc}"]


def generate(output: Path) -> None:
    """Generate messages, their types and the gRPC stubs of every .proto file below `output`."""
    sources = sorted(str(path) for path in (ROOT / "bertd").rglob("*.proto"))
    code = protoc.main(
        [
            "protoc",
            *includes(),
            *(f"--plugin={plugin}={SCRIPTS / plugin}" for plugin in PLUGINS),
            f"--python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--grpc_python_out={output}",
            f"--mypy_grpc_out=quiet:{output}",
            *sources,
        ]
    )
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
