"""Which linear layers of a graph stay in fp32 where the others become int8.

Those that the user names, and beyond them as few as it takes to reach the cosine, the layers with
the largest error first.
"""

from fnmatch import fnmatchcase
from pathlib import Path

import onnx

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.checkpoint.texts import TokenizedText
from bertd_export.errors import ExportError
from bertd_export.graph.runtime import session
from bertd_export.graph.saving import save_graph
from bertd_export.parity.agreement import CosineScores, task_agreement
from bertd_export.parity.packed_batch import compared_outputs
from bertd_export.quantization.int8_functions import write_functions
from bertd_export.quantization.int8_graph import write_int8
from bertd_export.quantization.rounding import RoundedLinear


class Candidates:
    """Int8 graphs that differ in which linear layers stay in fp32, and how good each is."""

    def __init__(
        self,
        graph: Path,
        checkpoint: Checkpoint,
        rounded: list[RoundedLinear],
        judge: list[TokenizedText],
    ) -> None:
        self.path = graph.with_name("int8.onnx")  # beside the fp32 weights that it refers to
        self._fp32 = onnx.load(str(graph), load_external_data=False)
        self._checkpoint = checkpoint
        self._rounded = rounded
        self._judge = judge
        self._expected = compared_outputs(session(graph), checkpoint, judge)

    def judge(self, kept: set[str]) -> CosineScores:
        """Write the graph with these linear layers in fp32, and compare it with the fp32 graph."""
        chosen = [one for one in self._rounded if one.linear.name not in kept]
        model = write_int8(self._fp32, chosen)
        write_functions(model)
        save_graph(model, self.path, "int8.onnx.data")
        answers = compared_outputs(session(self.path), self._checkpoint, self._judge)
        return task_agreement(self._checkpoint.task, self._expected, answers)


def search(
    candidates: Candidates, asked: set[str], rounded: list[RoundedLinear], least: float
) -> tuple[set[str], CosineScores]:
    """Keep the fewest linear layers in fp32, worst first, that reach the mean cosine.

    Returns:
        The layers kept and the agreement; below ``least`` if half of the layers do not suffice.
    """
    ranked = sorted(
        (one for one in rounded if one.linear.name not in asked), key=lambda one: -one.error
    )
    names = [one.linear.name for one in ranked]
    found = candidates.judge(asked)
    if found.mean >= least:
        return asked, found
    low, high = 0, len(names) // 2  # low is known to fail
    best = asked | set(names[:high])
    reached = candidates.judge(best)
    if reached.mean < least:
        return best, reached
    while high - low > 1:
        middle = (low + high) // 2
        kept = asked | set(names[:middle])
        found = candidates.judge(kept)
        if found.mean >= least:
            high, best, reached = middle, kept, found
        else:
            low = middle
    return best, candidates.judge(best)  # the file on disk is now the chosen one


def matched(patterns: tuple[str, ...], names: list[str]) -> set[str]:
    """The names that any of the patterns of ``--keep-fp32`` matches.

    Raises:
        ExportError: a pattern matches none, or they match all.
    """
    kept: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise ExportError(
                f"--keep-fp32 {pattern} matches no linear layer; there are: {', '.join(names)}"
            )
        kept |= found
    if len(kept) == len(names):
        raise ExportError("--keep-fp32 keeps every linear layer: export with --precision fp32")
    return kept
