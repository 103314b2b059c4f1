"""``bertd models``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from bertd_client.commands.running import client_command, connected, connection_options

if TYPE_CHECKING:
    from bertd_client.results import ModelInfo


@client_command("models", "The models that the server has.")
@connection_options
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "jsonl"]),
    default="text",
    show_default=True,
    help="How to print: a table, or one JSON object per model.",
)
@click.option("--json", "as_json", is_flag=True, hidden=True)  # as it was called at first
def models(*, address: str, timeout: float | None, style: str, as_json: bool) -> None:
    """List the models that the server has."""
    with connected(address) as client:
        found = client.list_models(timeout=timeout)
    if as_json or style == "jsonl":
        for model in found:
            fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
            fields["dimensions"] = model.dimensions or None
            record = {**fields, "prompts": dict(model.prompts)}
            click.echo(json.dumps(record, ensure_ascii=False).encode())
    else:
        _print_table(found)


def _print_table(found: list[ModelInfo]) -> None:
    rows: list[tuple[str, ...]] = [
        ("NAME", "VERSION", "TASK", "PRECISION", "DIMENSIONS", "MAX TOKENS", "POOLING")
    ]
    rows += [
        (
            model.name,
            model.version,
            model.task,
            model.precision,
            str(model.dimensions or ""),
            str(model.max_tokens),
            "+".join(model.pooling),
        )
        for model in found
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
