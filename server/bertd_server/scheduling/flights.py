"""Equal texts are computed once: a flight carries every call that wants the same sequence.

::

    Call ── texts ──> Flight (one sequence) ──> line ──> batch ──> outputs
    Call ── texts ──────┘  passengers: (call, index of the text)     │
      ^───────────────── settle(index, outcome) ─────────────────────┘

A flight is as urgent as its most urgent passenger. When the last one leaves before it has started,
it is cancelled; one that has started lands for nobody, but for the cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertd_server.engine.packing import TokenSequence
from bertd_server.errors import RequestError
from bertd_server.scheduling.admission import Place
from bertd_server.scheduling.cache import Outputs
from bertd_server.scheduling.cost import Shape
from bertd_server.system.call_metrics import Stages


class Answer(NamedTuple):
    """One text's outputs and how they came about; durations in ns.

    Attributes:
        outputs: float32 `[rows, …]` by name, as the engine gives them. Callers share them.
        queue_ns: from submission to the start of the batch.
        compute_ns: of the batch.
        batch_sequences: sequences in the batch; 0 if the outputs came from the cache.
        batch_tokens: tokens in the batch; 0 likewise.
    """

    outputs: Outputs
    queue_ns: int
    compute_ns: int
    batch_sequences: int
    batch_tokens: int


Outcome = Answer | RequestError


@dataclass(slots=True, eq=False)
class Call:
    """The texts of one call, and who waits for them. Times on the scheduler's clock.

    Attributes:
        stages: told of each text that was computed; None where nothing traces the call.
    """

    deadline: float
    priority: int
    arrived: float
    outcomes: list[Outcome | None]
    done: asyncio.Future[None]
    flights: set[Flight] = field(default_factory=set)
    missing: int = 0
    stages: Stages | None = None

    def __post_init__(self) -> None:
        self.missing = len(self.outcomes)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Give a text its outcome; the last one ends the call."""
        self.outcomes[index] = outcome
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Flight:
    """A sequence that is to be computed. It is what :mod:`.batching` calls a text.

    Attributes:
        key: equal for equal sequences and outputs.
        outputs: of the graph, that are wanted.
        place: in the backlog while it stands in line, else None.
        deaths: lanes that died with it on board.
    """

    key: bytes
    sequence: TokenSequence
    outputs: tuple[str, ...]
    shape: Shape
    turn: float
    passengers: list[tuple[Call, int]] = field(default_factory=list)
    priority: int = 0
    deadline: float = math.inf
    passed_over: int = 0
    place: Place | None = None
    deaths: int = 0

    def board(self, call: Call, index: int) -> None:
        """Carry a text of a call too."""
        self.passengers.append((call, index))
        call.flights.add(self)
        if len(self.passengers) > 1:
            self.urge()
        else:
            self.priority, self.deadline = call.priority, call.deadline

    def leave(self, call: Call) -> None:
        """Carry nothing of a call any more."""
        self.passengers = [(other, index) for other, index in self.passengers if other is not call]
        self.urge()

    def strand(self, arrival: float) -> list[tuple[Call, int]]:
        """Leave behind, and return, those for whom `arrival` is too late."""
        stranded = [one for one in self.passengers if one[0].deadline <= arrival]
        self.passengers = [one for one in self.passengers if one[0].deadline > arrival]
        self.urge()
        return stranded

    def urge(self) -> None:
        """Be as urgent as the most urgent passenger."""
        self.priority = min((call.priority for call, _ in self.passengers), default=self.priority)
        self.deadline = min((call.deadline for call, _ in self.passengers), default=math.inf)


@dataclass(slots=True, eq=False)
class Batch:
    """Flights that run together; `seconds` are predicted, `started` is on the scheduler's clock.

    `span` belongs to whatever traces its calls; None where nothing does.
    """

    flights: list[Flight]
    wide: bool
    seconds: float
    started: float
    shape: Shape = field(init=False)
    span: Any = None

    def __post_init__(self) -> None:
        self.shape = Shape.of(len(flight.sequence) for flight in self.flights)

    @property
    def outputs(self) -> list[str] | None:
        """All that anybody in it wants; None where nobody names any."""
        return sorted({name for flight in self.flights for name in flight.outputs}) or None


def key_of(sequence: TokenSequence, outputs: Sequence[str] = ()) -> bytes:
    """Equal for equal sequences of which the same is wanted, and for no others."""
    arrays = sequence.input_ids.tobytes() + sequence.token_type_ids.tobytes()  # of equal lengths
    return ",".join(outputs).encode() + b"\0" + arrays
