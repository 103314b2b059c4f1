"""How a model numbers positions, and how many tokens it reads."""

from pathlib import Path
from typing import Any

import torch

from bertd_export.errors import ExportError


def numbering(network: Any) -> tuple[int, int | None]:
    """How the model numbers positions by itself: the first one, and the token that takes none.

    The model is asked, rather than its class known: three tokens go through it, and what reaches
    the table of positions is read.

    Raises:
        ExportError: positions are numbered in a manner that a bundle cannot describe.
    """
    tables = [
        module
        for name, module in network.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding)
    ]
    if not tables:
        return 0, None  # rotary or relative positions
    seen: list[list[int]] = []
    padding = tables[0].padding_idx
    token = 0 if padding is None else padding
    with (
        tables[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].view(-1).tolist())),
        torch.inference_mode(),
    ):
        ids = torch.tensor([[token + 1, token, token + 1]])
        network(input_ids=ids, attention_mask=torch.ones_like(ids))
    if seen:
        first = seen[0][0]
        if seen[0] == [first, first + 1, first + 2]:
            return first, None
        if padding is not None and seen[0] == [first, first - 1, first + 1]:
            return first, padding
    raise ExportError(f"{type(network).__name__} numbers its positions in an unknown manner")


def longest(config: Any, offset: int, stated: int | None) -> int:
    """The most tokens that the model reads.

    Args:
        config: of the model, whose table of positions may end.
        offset: the first position.
        stated: what sentence-transformers' settings or the tokenizer's say.

    Raises:
        ExportError: nothing says it, or what does is wrong.
    """
    limits = []
    if getattr(config, "max_position_embeddings", None):
        limits.append(int(config.max_position_embeddings) - offset)
    if stated:
        limits.append(int(stated))
    if not limits:
        raise ExportError(
            "none of max_position_embeddings, max_seq_length and model_max_length is known"
        )
    if min(limits) < 1:
        raise ExportError(f"the model reads {min(limits)} tokens at most: its sizes are wrong")
    return min(limits)


def check_stated(folder: Path, config: Any, offset: int, stated: int | None) -> None:
    """Refuse a limit at which sentence-transformers reads more tokens than there are positions.

    It takes the limit that its settings state, whatever the model has; and RoBERTa and its kin
    reserve positions, which are often forgotten.

    Raises:
        ExportError: it does.
    """
    positions = int(getattr(config, "max_position_embeddings", 0) or 0) - offset
    if stated and 0 < positions < stated:
        raise ExportError(
            f"{folder}: max_seq_length is {stated}, and the model has {positions} positions "
            f"(max_position_embeddings{f' less the {offset} that it reserves' * bool(offset)}), so "
            f"that sentence-transformers fails on a text of more: set it to {positions}"
        )
