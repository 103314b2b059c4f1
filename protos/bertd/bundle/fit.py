"""Whether the parts of a bundle fit each other, by what they say of themselves; nothing runs.

::

    bertd.json      vocab_size, max_tokens, labels, …  ──┐
    model.onnx      rows of the tables of its embedding ─┼──misfits──> what does not fit
    tokenizer.json  its largest token id ────────────────┘

Hashes say that files are those that were exported. They do not say that a graph has a row for
every token of the tokenizer, nor a position for every token of the longest text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bertd.bundle import INPUT_IDS, POSITION_IDS, TOKEN_TYPE_IDS, BundleError, Manifest
from bertd.bundle.graphs import table_rows

MAX_TOKENS = 2**20
"""The longest sequence of a model without a table of positions, which could bound it."""


def check_fit(folder: Path, manifest: Manifest, largest_id: int) -> None:
    """Refuse a bundle whose parts do not fit each other.

    Args:
        folder: a bundle whose files and graph are checked.
        manifest: its manifest.
        largest_id: of the tokens that its tokenizer makes.

    Raises:
        BundleError: one line names all that does not fit.
    """
    found = list(misfits(manifest, table_rows(folder), largest_id))
    if found:
        raise BundleError(
            f"{folder} does not fit together: {'; '.join(found)}: export the model again"
        )


def misfits(manifest: Manifest, rows: Mapping[str, int], largest_id: int) -> Iterator[str]:
    """What does not fit, each with its field and its limit.

    Args:
        manifest: of the bundle.
        rows: of the table in which the graph looks up each of its inputs, where it does.
        largest_id: of the tokens that the tokenizer makes.
    """
    tokens = rows.get(INPUT_IDS, manifest.vocab_size)
    if manifest.vocab_size != tokens:
        yield f"vocab_size is {manifest.vocab_size}, the graph embeds {tokens} tokens"
    if largest_id >= tokens:
        yield f"the tokenizer makes token {largest_id}, the graph embeds {tokens}, from 0"
    types = rows.get(TOKEN_TYPE_IDS, manifest.type_vocab_size)
    if manifest.type_vocab_size > types:
        yield f"type_vocab_size is {manifest.type_vocab_size}, the graph has {types} token types"
    yield from _positions(manifest, rows.get(POSITION_IDS))
    for name, limit, of in (
        ("mask_token_id", tokens, "tokens"),
        ("unnumbered_token_id", tokens, "tokens"),
        ("entailment_label", len(manifest.labels), "labels"),
        ("contradiction_label", len(manifest.labels), "labels"),
    ):
        value = getattr(manifest, name)
        if value is not None and not 0 <= value < limit:
            yield f"{name} is {value}, of {limit} {of}, from 0"
    if manifest.contradiction_label == manifest.entailment_label is not None:
        yield f"contradiction_label is entailment_label, {manifest.entailment_label}"
    default = manifest.default_prompt_name
    if default and default not in manifest.prompts:
        yield f"default_prompt_name {default!r} is not among the prompts"


def _positions(manifest: Manifest, rows: int | None) -> Iterator[str]:
    offset = manifest.position_offset
    if manifest.unnumbered_token_id is not None and offset < 1:
        yield "unnumbered_token_id needs a position before the first: position_offset is 0"
    if rows is None:
        if manifest.max_tokens > MAX_TOKENS:
            yield f"max_tokens is {manifest.max_tokens}, at most {MAX_TOKENS} is taken"
    elif offset + manifest.max_tokens > rows:
        yield (
            f"max_tokens is {manifest.max_tokens}, the graph has positions for {rows - offset} "
            "tokens"
        )
