"""Who may answer a call: the models that were served at some moment between its begin and its end.

::

    turns       A as 1 ──> B as 2 ──> A as 3      added before it is in the repository
    settled                ^                      moved once the one before answers no new calls
    call                        begin ─────> end  may have an answer of any from settled to the last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bertd_bench.drills.models import Kind


@dataclass(frozen=True, slots=True)
class Turn:
    """A model while it is served."""

    kind: Kind
    version: str


@dataclass(slots=True)
class Timeline:
    """All that was served, in order; it has one turn at least.

    Attributes:
        turns: the last one may not be served yet.
        settled: place of the first that may answer calls that begin now.
    """

    turns: list[Turn]
    settled: int = field(default=0)

    @property
    def last(self) -> Turn:
        """The one that is to be served."""
        return self.turns[-1]

    def add(self, turn: Turn) -> None:
        """It may answer from now on."""
        self.turns.append(turn)

    def settle(self) -> None:
        """The last one answers all calls that begin from now on."""
        self.settled = len(self.turns) - 1

    def wrong(
        self, began: int, texts: Sequence[str], vectors: Sequence[bytes], version: str = ""
    ) -> str:
        """What is wrong with an answer; empty if nothing is.

        Args:
            began: what `settled` was when the call began.
            texts: of the call.
            vectors: of the answer, float32.
            version: of the model, as the answer says; empty if it does not say.
        """
        if len(vectors) != len(texts):
            return f"{len(texts)} texts had {len(vectors)} vectors"
        for turn in self.turns[began:]:
            if version not in {"", turn.version}:
                continue
            if all(
                turn.kind.bits[text] == vector for text, vector in zip(texts, vectors, strict=True)
            ):
                return ""
        letters = {turn.kind.letter: turn.kind for turn in self.turns}
        found = [
            next((name for name, kind in letters.items() if kind.bits[text] == vector), "nobody")
            for text, vector in zip(texts, vectors, strict=True)
        ]
        allowed = ", ".join(f"{turn.kind.letter} as {turn.version}" for turn in self.turns[began:])
        return f"an answer as version {version or '?'} has the bits of {found}; allowed: {allowed}"
