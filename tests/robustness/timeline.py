"""Who may answer a call: the models that were served at some moment between its begin and its end.

::

    versions       A as 1 ──> B as 2 ──> A as 3      added before it is in the repository
    settled                ^                      moved once the one before answers no new calls
    call                        begin ─────> end  may have an answer of any from settled to the last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertd import bundle
from bertd_bench.harness.texts import WORDS
from bertd_server.engine.engine import Engine
from bertd_server.tokenization.reader import Reader

TEXTS: tuple[str, ...] = tuple(
    " ".join(WORDS[(7 * text + place) % len(WORDS)] for place in range(1 + 5 * text))
    for text in range(24)
)
"""What is asked; no two are equal."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model, and the bits of its vector of each text when it is asked alone."""

    letter: str
    bundle: Path
    bits: Mapping[str, bytes] = field(repr=False)


def known(letter: str, folder: Path) -> KnownModel:
    """A bundle for embeddings, asked alone, each text by itself."""
    manifest = bundle.read_manifest(folder)
    reader, engine = Reader.of(folder, manifest), Engine(folder, manifest)
    bits = {text: engine.embed(reader.sequences([text]))[0].tobytes() for text in TEXTS}
    return KnownModel(letter, folder, bits)


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A model while it is served."""

    model: KnownModel
    version: str


@dataclass(slots=True)
class Timeline:
    """All that was served, in order; it has one at least.

    Attributes:
        versions: the last one may not be served yet.
        settled: place of the first that may answer calls that begin now.
    """

    versions: list[ServedVersion]
    settled: int = 0

    @property
    def last(self) -> ServedVersion:
        """The one that is to be served."""
        return self.versions[-1]

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
        allowed = self.versions[began:]
        for served in allowed:
            bits = [served.model.bits[text] for text in texts]
            if version in {"", served.version} and bits == list(vectors):
                return ""
        models = {served.model.letter: served.model for served in self.versions}
        found = [
            next((letter for letter in models if models[letter].bits[text] == vector), "nobody")
            for text, vector in zip(texts, vectors, strict=True)
        ]
        named = ", ".join(f"{served.model.letter} as {served.version}" for served in allowed)
        return f"an answer as version {version or '?'} has the bits of {found}; allowed: {named}"
