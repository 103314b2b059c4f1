"""Which operators take the time of a batch, by ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from bertd import bundle
from bertd_server.engine import sessions
from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence, pack

_RUNS = 10


def shares(folder: Path, engine: Engine, texts: Sequence[TokenSequence]) -> dict[str, float]:
    """Share of the time of one-threaded runs by kind of operator, largest first.

    What passes between operators is not in the sum.
    """
    manifest = engine.manifest
    batch = pack(texts, manifest.position_offset, manifest.unnumbered_token_id)
    with tempfile.TemporaryDirectory() as scratch:
        options = sessions.configured(1, sessions.SessionOptions())
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = ort.InferenceSession(
            str(folder / bundle.GRAPH_NAME), options, providers=["CPUExecutionProvider"]
        )
        wanted = {entry.name for entry in session.get_inputs()}
        feeds = {name: array for name, array in batch.feeds().items() if name in wanted}
        for _ in range(_RUNS):
            session.run(list(engine.outputs), feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    took: Counter[str] = Counter()
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            took[event["args"]["op_name"]] += event["dur"]
    took.pop("Loop", None)  # the operators in it are there themselves
    total = sum(took.values())
    return {name: round(time / total, 4) for name, time in took.most_common(10)}
