"""The last hidden state inside a stock model: where it arises, and how to hand on other rows.

::

    encoder ──last hidden state──> [other rows] ──> the model's own pooler and head
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers.utils.generic import ModelOutput

from bertd_export.errors import ExportError

Reads = Literal["first", "mean", "tokens", "masks"]

_LENGTH = 11


def _example(model: Any) -> dict[str, torch.Tensor]:
    ids = torch.arange(_LENGTH)[None] * 7 % int(model.config.vocab_size)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _first_tensor(output: Any) -> torch.Tensor | None:
    if isinstance(output, (tuple, ModelOutput)) and len(output) > 0:
        output = output[0]
    return output if isinstance(output, torch.Tensor) else None


def hidden_source(base: Any) -> torch.nn.Module:
    """The last module inside an encoder whose output is the last hidden state.

    It is found by running the encoder: the module ran once, and gave the very tensor that the
    encoder gives.

    Args:
        base: a model without head, such as BertModel.

    Raises:
        ExportError: no module does.
    """
    ran: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def note(module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is not None:
            ran.append((module, tensor))

    hooks = [module.register_forward_hook(note) for module in base.modules() if module is not base]
    try:
        with torch.no_grad():
            last = base(**_example(base)).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(id(module) for module, _ in ran)
    found = [module for module, tensor in ran if tensor is last and times[id(module)] == 1]
    if not found:
        raise ExportError(
            f"{type(base).__name__}: no module inside gives the last hidden state, "
            f"so its rows cannot be handed to a head"
        )
    return found[-1]


def _exchanged(output: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """The output with a new tensor wherever the old stood: DeBERTa reads it from hidden_states."""
    if output is old:
        return new
    if isinstance(output, ModelOutput):
        return type(output)(**{k: _exchanged(v, old, new) for k, v in output.items()})
    if isinstance(output, tuple):
        return tuple(_exchanged(part, old, new) for part in output)
    return output


@contextmanager
def replaced_rows(
    source: torch.nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Within the context, what follows ``source`` sees ``replace(hidden state)``.

    Args:
        source: the module that gives the hidden state `[batch, tokens, hidden]`.
        replace: gives the rows to see, in a tensor of as many axes.
    """

    def swap(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        last = _first_tensor(output)
        if last is None:
            raise ExportError(f"{type(source).__name__} no longer gives the last hidden state")
        return _exchanged(output, last, replace(last))

    hook = source.register_forward_hook(swap)
    try:
        yield
    finally:
        hook.remove()


def probe(model: Any, source: torch.nn.Module) -> Reads:
    """Which rows a head that gives one answer per text reads: the first, or the mean of all.

    Each is handed to the stock head alone, to see which gives the stock logits.

    Raises:
        ExportError: neither does.
    """
    candidates: dict[Reads, Callable[[torch.Tensor], torch.Tensor]] = {
        "first": lambda hidden: hidden[:, :1],
        "mean": lambda hidden: hidden.mean(dim=1, keepdim=True),
    }
    example = _example(model)
    with torch.no_grad():
        expected = model(**example).logits
        for reads, select in candidates.items():
            with replaced_rows(source, select):
                # Without a mask: the head sees a single row.
                logits = model(input_ids=example["input_ids"]).logits
            if logits.shape == expected.shape and torch.allclose(logits, expected, atol=1e-5):
                return reads
    raise ExportError(
        f"{type(model).__name__}: its head reads neither the first row nor the mean of all rows; "
        f"not supported"
    )
