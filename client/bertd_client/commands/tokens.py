"""Commands on tokens, which no model computes: tokenize, count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from bertd_client.commands.entries import PAIRS, TEXTS, entries, texts_or_pairs
from bertd_client.commands.outputs import JsonObject, place
from bertd_client.commands.running import (
    InputCommand,
    client_command,
    described,
    input_options,
    run,
)


@client_command("tokenize", "The tokens of each text.")
@TEXTS
@PAIRS
@input_options
@click.option(
    "--special-tokens/--no-special-tokens", default=None, help="Give [CLS] and the like, or not."
)
def tokenize(*, texts: tuple[str, ...], pairs: bool, **options: Any) -> None:
    """Show the tokens of each TEXT, or of each line of standard input (-).

    JSON lines have "text", and "text_pair" if they are pairs. Answers have "tokens".
    """
    command = InputCommand(
        lambda client, records, asked: client.tokenize_each(texts_or_pairs(records), **asked),
        lambda found: {"tokens": described(found)},
        _show_tokens,
    )
    run(command, entries(texts, jsonl=options["jsonl"], pairs=pairs), options)


@client_command("count", "How many tokens each text has.")
@TEXTS
@PAIRS
@input_options
def count(*, texts: tuple[str, ...], pairs: bool, **options: Any) -> None:
    """Count the tokens of each TEXT, or of each line of standard input (-).

    JSON lines have "text", and "text_pair" if they are pairs. Answers have "tokens", special tokens
    included.
    """
    command = InputCommand(
        lambda client, records, asked: client.count_tokens_each(texts_or_pairs(records), **asked),
        lambda found: {"tokens": found},
        _show_count,
    )
    run(command, entries(texts, jsonl=options["jsonl"], pairs=pairs), options)


def _show_tokens(record: JsonObject) -> Iterator[str]:
    """Ids, tokens and their places."""
    for one in record["tokens"]:
        yield f"{one['id']:>7}  {one['token']:<16}  {'special' if one['special'] else place(one)}"


def _show_count(record: JsonObject) -> Iterator[str]:
    """How many."""
    yield f"{record['tokens']} tokens"
