"""Labels of token-classification: the name of an entity, and where in it a token stands.

::

    "B-PER", "PER_B" ──read──> Tag("PER", "begin")
    "O"              ──read──> Tag("", "outside")
    tags in order    ──begins──> where one entity ends and the next one begins
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bertd.bundle.manifest import LabelScheme

Role = Literal["begin", "inside", "end", "single", "outside"]

OUTSIDE = "O"
# What the letters of all schemes mean: IOB1, IOB2, IOE, BIOES, BILOU, BMES, BMEWO.
ROLES: dict[str, Role] = {
    "B": "begin",
    "I": "inside",
    "M": "inside",
    "E": "end",
    "L": "end",
    "S": "single",
    "U": "single",
    "W": "single",
}


@dataclass(frozen=True, slots=True)
class Tag:
    """What a label says: the name of its entity, empty outside of all, and the place in it.

    A label without a letter is inside: neighbours with the same one are one entity.
    """

    name: str
    role: Role = "inside"


def read(label: str, scheme: LabelScheme | None) -> Tag:
    """A label of a model, by the scheme of its labels; None where they follow none."""
    if label == (scheme.outside if scheme else OUTSIDE):
        return Tag("", "outside")
    if scheme is not None:
        letter, name = divided(label, scheme.position, scheme.separator)
        if letter in scheme.letters and name:
            return Tag(name, ROLES[letter.upper()])
    return Tag(label)


def divided(label: str, position: str, separator: str) -> tuple[str, str]:
    """What lies before and after the first separator, or for a suffix after and before the last."""
    if position == "prefix":
        letter, _, name = label.partition(separator)
    else:
        name, _, letter = label.rpartition(separator)
    return letter, name


def begins(tag: Tag, before: Tag) -> bool:
    """Whether a token begins another entity than the one before it, as conlleval reads tags.

    An "I" that continues nothing begins an entity, so that IOB1 and IOB2 are read alike; what
    follows an "E" or an "S" begins one whatever it says.
    """
    return (
        tag.name != before.name
        or tag.role in ("begin", "single")
        or before.role in ("end", "single")
    )
