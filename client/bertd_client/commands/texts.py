"""Commands whose inputs are texts: classify, zero-shot, tag, fill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from bertd_client.commands.entries import PAIRS, TEXTS, entries, texts_of, texts_or_pairs
from bertd_client.commands.outputs import JsonObject, place
from bertd_client.commands.running import InputCommand, client_command, run, task_options, usual


@client_command("classify", "The model's labels, scored for each text.")
@TEXTS
@PAIRS
@task_options(windows=False)
@click.option("--top-k", type=click.IntRange(min=1), help="Labels to give.  [default: all]")
@click.option(
    "--score-function",
    type=click.Choice(["softmax", "sigmoid", "none"]),
    help="How scores come from logits.  [default: as the model says]",
)
def classify(*, texts: tuple[str, ...], pairs: bool, **options: Any) -> None:
    """Score the model's labels for each TEXT, or for each line of standard input (-).

    JSON lines have "text", and "text_pair" if they are pairs. Answers have "labels".
    """
    command = InputCommand(
        lambda client, records, asked: client.classify_each(texts_or_pairs(records), **asked),
        usual,
        _show_labels,
    )
    run(command, entries(texts, jsonl=options["jsonl"], pairs=pairs), options)


@client_command("zero-shot", "Labels of your own, scored for each text.")
@TEXTS
@task_options(windows=False)
@click.option(
    "--label", "labels", multiple=True, required=True, help="A label to score; repeat it for more."
)
@click.option(
    "--hypothesis-template",
    help="The sentence that a label makes.  [default: This example is {}.]",
)
@click.option("--multi-label", is_flag=True, default=None, help="Judge each label by itself.")
def zero_shot(*, texts: tuple[str, ...], labels: tuple[str, ...], **options: Any) -> None:
    """Score labels of your own for each TEXT, or for each line of standard input (-).

    JSON lines have "text". Answers have "labels".
    """
    command = InputCommand(
        lambda client, records, asked: client.classify_zero_shot_each(
            texts_of(records), labels, **asked
        ),
        usual,
        _show_labels,
    )
    run(command, entries(texts, jsonl=options["jsonl"]), options)


@client_command("tag", "The entities in each text.")
@TEXTS
@task_options(windows=True)
@click.option(
    "--aggregation",
    type=click.Choice(["none", "simple", "first", "average", "max"]),
    help="How tokens become entities.  [default: simple]",
)
@click.option("--include-outside", is_flag=True, default=None, help='Give "O", no entity, too.')
def tag(*, texts: tuple[str, ...], **options: Any) -> None:
    """Find the entities of each TEXT, or of each line of standard input (-).

    JSON lines have "text". Answers have "entities": text[start:end], in code points.
    """
    command = InputCommand(
        lambda client, records, asked: client.tag_each(texts_of(records), **asked),
        usual,
        _show_entities,
    )
    run(command, entries(texts, jsonl=options["jsonl"]), options)


@client_command("fill", "What fits the mask tokens of each text.")
@TEXTS
@task_options(windows=False)
@click.option("--top-k", type=click.IntRange(1, 1000), help="Tokens for each mask.  [default: 5]")
@click.option(
    "--target", "targets", multiple=True, help="A token to choose from; repeat it for more."
)
def fill(*, texts: tuple[str, ...], **options: Any) -> None:
    """Fill the mask tokens of each TEXT, or of each line of standard input (-).

    The mask is written as the model does: `bertd models --format jsonl` has its "mask_token".
    JSON lines have "text". Answers have "masks", each with "candidates", best first.
    """
    command = InputCommand(
        lambda client, records, asked: client.fill_mask_each(texts_of(records), **asked),
        usual,
        _show_masks,
    )
    run(command, entries(texts, jsonl=options["jsonl"]), options)


def _show_labels(record: JsonObject) -> Iterator[str]:
    """Scores with their labels."""
    for one in record["labels"]:
        yield f"{one['score']:8.4f}  {one['label']}"


def _show_entities(record: JsonObject) -> Iterator[str]:
    """Entities with their places."""
    for one in record["entities"]:
        yield f"{one['score']:8.4f}  {one['label']:<10}  {place(one)}  {one['text']}"
    if not record["entities"]:
        yield "nothing found"


def _show_masks(record: JsonObject) -> Iterator[str]:
    """What fits each mask."""
    for number, mask in enumerate(record["masks"], 1):
        for one in mask["candidates"]:
            yield f"{one['score']:8.4f}  mask {number}  {one['text']}"
