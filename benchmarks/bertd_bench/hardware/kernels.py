"""Small graphs on ONNX Runtime with their inputs bound, and calls timed in turns.

::

    graph ──session_of──> session on a provider ──bound──> call that moves no tensors
    calls of each system ──Meter──> their times, round by round
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from bertd_export.graph.operators import OPSET
from bertd_server.engine import providers, sessions
from bertd_server.system.setting_types import Provider
from onnx import helper
from pydantic import BaseModel

from bertd_bench.harness import rounds
from bertd_bench.harness.intervals import Interval
from bertd_bench.harness.noise import NoiseWatch
from bertd_bench.harness.rounds import Schedule, SystemTimes
from bertd_bench.harness.system import Calls


def session_of(graph: onnx.GraphProto, threads: int, provider: Provider) -> Any:
    """ONNX Runtime on a graph of stock operators.

    Raises:
        CannotServeError: the provider is not there, or does not start.
    """
    opsets = [helper.make_opsetid("", OPSET)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session: Any = ort.InferenceSession(
        model.SerializeToString(),
        sessions.configured(threads, sessions.SessionOptions(provider)),
        providers=providers.chain(provider),
    )
    providers.check_started(provider, session.get_providers())
    return session


def bound(
    session: Any, inputs: Mapping[str, np.ndarray[Any, Any]], provider: Provider
) -> Callable[[], object]:
    """A run with inputs where they are computed, and outputs left there."""
    device = "cuda" if provider in {"cuda", "tensorrt"} else "cpu"
    binding = session.io_binding()
    for name, values in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


@dataclass(frozen=True, slots=True)
class Meter:
    """How everything of one card is timed.

    Attributes:
        provider: what computes.
        threads: of this machine.
        schedule: how often each call is made.
        watch: times its kernel between rounds; None for nobody.
    """

    provider: Provider
    threads: int
    schedule: Schedule
    watch: NoiseWatch | None = None

    @property
    def counts(self) -> list[int]:
        """Numbers of threads: one, half of all where that is more, and all; of a device, all."""
        counts = {1, max(1, self.threads // 2), self.threads}
        return sorted(counts) if self.provider == "cpu" else [self.threads]

    def in_turns(self, calls: Sequence[tuple[str, int, Callable[[], object]]]) -> list[SystemTimes]:
        """Time calls of so many threads, by their names, in rounds."""
        return rounds.run(
            [Calls(name, threads, [call]) for name, threads, call in calls],
            0,
            self.schedule,
            random.Random(0),  # noqa: S311 - the order of turns is no secret
            watch=self.watch,
        )


class TimedWork(BaseModel, frozen=True):
    """Some work, and the times of its calls.

    Attributes:
        measured: the times, round by round.
    """

    measured: SystemTimes

    @property
    def work(self) -> float:
        """Of one call: bytes, or multiplications and additions."""
        raise NotImplementedError

    @property
    def rate(self) -> float:
        """Work over the median time, in 1e9 a second."""
        return self.work / self.measured.median_ms / 1e6

    @property
    def interval(self) -> Interval | None:
        """95 % interval of that."""
        found, work = self.measured.interval_ms, self.work / 1e6
        return found and Interval(low=work / found.high, high=work / found.low)
