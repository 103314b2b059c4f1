"""Options of the commands that read a checkpoint."""

import math
from collections.abc import Callable
from typing import Any

import click

allow_pickle = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pytorch_model.bin where there are no safetensors. It is unpickled by a loader that "
    "makes tensors only and runs no code.",
)

_ENTAILMENT = click.option(
    "--entailment-label",
    metavar="NAME",
    help="Of --task zero-shot-classification: the label that means entailment (default: the one "
    'that begins with "entail").',
)
_CONTRADICTION = click.option(
    "--contradiction-label",
    metavar="NAME",
    help="The label that multi_label weighs against entailment (default: the one that begins with "
    '"contra", else the one that transformers takes).',
)


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which compares as nothing does, and infinity."""

    name = "float range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a usage error that names the option."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def inference_labels(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what the labels of an inference model are called."""
    return _ENTAILMENT(_CONTRADICTION(command))
