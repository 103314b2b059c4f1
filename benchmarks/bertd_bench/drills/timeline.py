"""Who may answer a call: the models that were served at some moment between its begin and its end.

::

    versions       A as 1 ──> B as 2 ──> A as 3      added before it is in the repository
    settled                ^                      moved once the one before answers no new calls
    call                        begin ─────> end  may have an answer of any from settled to the last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bertd_bench.drills.models import DrillModel


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A model while it is served."""

    model: DrillModel
    version: str


@dataclass(slots=True)
class Timeline:
    """All that was served, in order; it has one at least.

    Attributes:
        versions: the last one may not be served yet.
        settled: place of the first that may answer calls that begin now.
    """

    versions: list[ServedVersion]
    settled: int = field(default=0)

    @property
    def last(self) -> ServedVersion:
        """The one that is to be served."""
        return self.versions[-1]

    def add(self, served: ServedVersion) -> None:
        """It may answer from now on."""
        self.versions.append(served)

    def settle(self) -> None:
        """The last one answers all calls that begin from now on."""
        self.settled = len(self.versions) - 1

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
        for served in self.versions[began:]:
            if version not in {"", served.version}:
                continue
            if all(
                served.model.bits[text] == vector
                for text, vector in zip(texts, vectors, strict=True)
            ):
                return ""
        letters = {served.model.letter: served.model for served in self.versions}
        found = [
            next((name for name, model in letters.items() if model.bits[text] == vector), "nobody")
            for text, vector in zip(texts, vectors, strict=True)
        ]
        allowed = ", ".join(
            f"{served.model.letter} as {served.version}" for served in self.versions[began:]
        )
        return f"an answer as version {version or '?'} has the bits of {found}; allowed: {allowed}"
