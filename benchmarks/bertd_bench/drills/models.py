"""Two models of one shape with different weights, and what each answers when it is alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertd import bundle
from bertd_export.bundle import export_model
from bertd_server.engine.engine import Engine
from bertd_server.tokenization.reader import Reader

from bertd_bench.contestants.checkpoints import save_random
from bertd_bench.contestants.eager import BenchError
from bertd_bench.harness.texts import WORDS

NAME = "drill"
TEXTS: tuple[str, ...] = tuple(
    " ".join(WORDS[(7 * text + place) % len(WORDS)] for place in range(1 + 5 * text))
    for text in range(24)
)
"""What is asked; no two are equal."""


@dataclass(frozen=True, slots=True)
class DrillModel:
    """A model, and what it answers alone.

    Attributes:
        letter: what it is called in a report.
        bundle: its folder.
        bits: of its vector of each text, float32.
    """

    letter: str
    bundle: Path
    bits: Mapping[str, bytes] = field(repr=False)


def known(letter: str, folder: Path) -> DrillModel:
    """A bundle for embeddings, asked alone, each text by itself."""
    manifest = bundle.read_manifest(folder)
    reader, engine = Reader.of(folder, manifest), Engine(folder, manifest)
    bits = {text: engine.embed(reader.sequences([text]))[0].tobytes() for text in TEXTS}
    return DrillModel(letter, folder, bits)


def make(folder: Path) -> tuple[DrillModel, DrillModel]:
    """Export both into a folder."""
    models = []
    for seed, letter in enumerate("AB"):
        checkpoint, exported = folder / f"checkpoint-{letter}", folder / f"bundle-{letter}"
        save_random("bert", "feature-extraction", "tiny", checkpoint, seed=seed)
        export_model(str(checkpoint), exported, name=NAME)
        models.append(known(letter, exported))
    return models[0], models[1]


def check_different(models: Sequence[DrillModel]) -> None:
    """A drill with models that answer the same would prove nothing.

    Raises:
        BenchError: they do, for some text.
    """
    for text in TEXTS:
        if len({model.bits[text] for model in models}) < len(models):
            raise BenchError(f"two of the models answer {text!r} with the same bits")


def copy(source: Path, target: Path) -> None:
    """Copy a bundle; the files of one file system are shared, not written again."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=link)
