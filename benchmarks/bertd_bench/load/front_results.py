"""What the front end costs: figures, targets, profile, and their tables."""

from __future__ import annotations

import statistics

from pydantic import BaseModel

from bertd_bench.harness.machine import Machine

UNARY_LIMIT = 1.6  # of the echo, in calls of one text
BULK_LIMIT = 0.2  # of the same echo, for each text
UNARY = "Embed, 1 text"


class Turn(BaseModel, frozen=True):
    """One load on one server: messages answered, and CPU seconds of the server by its threads."""

    messages: int
    seconds: dict[str, float]

    @property
    def each(self) -> float:
        """CPU seconds of one message."""
        return sum(self.seconds.values()) / self.messages


class Row(BaseModel, frozen=True):
    """Calls, or messages of streams, of one kind, on both servers in turns.

    Attributes:
        request_bytes: of a message.
        answer_bytes: of its answer.
    """

    name: str
    texts: int
    request_bytes: int
    answer_bytes: int
    bertd: list[Turn]
    echo: list[Turn]

    @property
    def cost(self) -> float:
        """Median CPU seconds of a message."""
        return statistics.median(turn.each for turn in self.bertd)

    @property
    def echo_cost(self) -> float:
        """The same of the echo."""
        return statistics.median(turn.each for turn in self.echo)

    @property
    def ratio(self) -> float:
        """Median, over the rounds, of ours over the echo."""
        pairs = zip(self.bertd, self.echo, strict=True)
        return statistics.median(ours.each / bare.each for ours, bare in pairs)


class Frame(BaseModel, frozen=True):
    """A function of the profile; microseconds a call of the RPC, and how often it was called."""

    name: str
    calls: float
    own: float
    cumulative: float


class FrontReport(BaseModel, frozen=True):
    """One run of `bertd bench front-end`."""

    model: str
    tokens: int
    workers: int
    machine: Machine
    rows: list[Row]
    profile: list[Frame]

    @property
    def echo_call(self) -> float:
        """CPU seconds of an echo of the sizes of a unary call of one text."""
        return next(row.echo_cost for row in self.rows if row.name == UNARY)


def to_markdown(report: FrontReport) -> str:
    """Tables for the documentation."""
    introduction = (
        f"{report.model}, texts of {report.tokens} tokens, {report.workers} calls at once, "
        f"{report.machine.cpu}, load {report.machine.load_average[0]:.2f} before the run. "
        "CPU time of the whole server process; medians of "
        f"{len(report.rows[0].bertd)} rounds."
    )
    lines = [
        introduction,
        "",
        "| | a message | echo of its sizes | ratio | a text | over one echo call | wanted | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in report.rows:
        share = row.cost / row.texts / report.echo_call
        limit = UNARY_LIMIT if row.name == UNARY else BULK_LIMIT
        measured = row.ratio if row.name == UNARY else share
        lines.append(
            f"| {row.name} | {row.cost * 1e6:.0f} µs | {row.echo_cost * 1e6:.0f} µs "
            f"| {row.ratio:.2f} | {row.cost / row.texts * 1e6:.0f} µs | {share:.2f} "
            f"| ≤ {limit:.1f} | {'met' if measured <= limit else '**missed**'} |"
        )
    lines += ["", "Of a message, by threads of the server:", "", _threads(report)]
    for what, key in (("own", "own"), ("cumulative", "cumulative")):
        lines += [
            "",
            f"| most {what} time | times a call | own | with callees |",
            "|---|---:|---:|---:|",
        ]
        top = sorted(report.profile, key=lambda frame: -float(getattr(frame, key)))[:10]
        lines += [
            f"| `{frame.name}` | {frame.calls:.1f} | {frame.own:.0f} µs "
            f"| {frame.cumulative:.0f} µs |"
            for frame in top
        ]
    return "\n".join(lines) + "\n"


def _threads(report: FrontReport) -> str:
    kinds = sorted({kind for row in report.rows for turn in row.bertd for kind in turn.seconds})
    lines = [f"| | {' | '.join(kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for row in report.rows:
        for name, turns in ((row.name, row.bertd), ("its echo", row.echo)):
            cells = [
                statistics.median(turn.seconds.get(kind, 0.0) / turn.messages for turn in turns)
                for kind in kinds
            ]
            lines.append(f"| {name} | {' | '.join(f'{cell * 1e6:.0f} µs' for cell in cells)} |")
    return "\n".join(lines)
