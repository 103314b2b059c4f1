"""The command whose answers are vectors: embed, of texts, of their tokens, or sparse ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from bertd_client.commands.entries import TEXTS, entries, texts_of
from bertd_client.commands.files import file_options, reads_files
from bertd_client.commands.outputs import JsonObject
from bertd_client.commands.running import (
    InputCommand,
    client_command,
    described,
    rest,
    run,
    task_options,
    usual,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VALUES = 6  # of a vector that are shown
_DTYPES = {  # what there is of numbers, and as which numbers NumPy has them
    "float32": "float32",
    "int8": "int8",
    "uint8": "uint8",
    "binary": "int8",
    "ubinary": "uint8",
}
# Options that a kind of vector does not have.
_ALIEN = {
    "": ("max_active_dims",),
    "--per-token": ("max_active_dims", "dimensions", "output_dtype", "ranges"),
    "--sparse": ("stride", "dimensions", "output_dtype", "ranges"),
}


def _ranges(
    ctx: click.Context, param: click.Parameter, given: str | None
) -> NDArray[np.float64] | None:
    """A pair of numbers, or an array in a file."""
    del ctx, param
    if given is None:
        return None
    import numpy as np

    try:
        if given.endswith(".npy"):
            found: NDArray[np.float64] = np.load(given).astype(np.float64)
        else:
            found = np.array([float(part) for part in given.split(",")])
    except (OSError, EOFError, ValueError) as error:
        raise click.BadParameter(f"{given}: {error}") from error
    if found.ndim not in {1, 2} or len(found) != 2:
        raise click.BadParameter(
            f"{given} has shape {found.shape}: give LOW,HIGH, or an array (2, dimensions)"
        )
    return found


@client_command("embed", "A vector for each text, or for each of its tokens.")
@TEXTS
@task_options(windows=True)
@click.option(
    "--prompt-name", help="Prompt to put before each text; '' for none.  [default: the model's]"
)
@click.option("--per-token", is_flag=True, help="One vector for each token instead.")
@click.option("--sparse", is_flag=True, help="A weight for each entry of the vocabulary (SPLADE).")
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="First values of each vector to give.  [default: all]",
)
@click.option(
    "--output-dtype", type=click.Choice(list(_DTYPES)), help="As which numbers.  [default: float32]"
)
@click.option(
    "--ranges",
    metavar="LOW,HIGH | FILE.npy",
    callback=_ranges,
    help="Of int8 and uint8: lowest and highest value, or an array (2, dimensions) of them.",
)
@click.option(
    "--max-active-dims", type=click.IntRange(min=1), help="Weights to give.  [default: all]"
)
@file_options
def embed(*, texts: tuple[str, ...], per_token: bool, sparse: bool, **options: Any) -> None:
    """Compute a vector for each TEXT, or for each line of standard input (-).

    JSON lines have "text". Answers have "tokens" and "embedding"; with --per-token "tokens" is the
    list of them and "embeddings" has a vector for each; with --sparse "indices" are tokens of the
    vocabulary and "values" their weights.

    With --input, rows of Parquet files instead, without a server.
    """
    if per_token and sparse:
        raise click.UsageError("--per-token and --sparse are two kinds of vectors: give one")
    kind = "--per-token" if per_token else "--sparse" if sparse else ""
    for name in _ALIEN[kind]:
        if options.pop(name) is not None:
            said = f"does not go with {kind}" if kind else "goes with --sparse"
            raise click.UsageError(f"--{name.replace('_', '-')} {said}")
    if options["input"] and per_token:
        raise click.UsageError("--per-token does not go with --input: ask a server")
    if reads_files("embed_sparse" if sparse else "embed", texts, options):
        return
    if per_token:
        command = _of_tokens()
    elif sparse:
        command = _sparse()
    else:
        command = _of_texts(options["output_dtype"] or "float32")
    run(command, entries(texts, jsonl=options["jsonl"]), options)


def _of_texts(dtype: str) -> InputCommand:
    return InputCommand(
        lambda client, records, asked: client.embed_each(texts_of(records), **asked),
        lambda found: {"tokens": found.tokens, "embedding": found.vector, **rest(found)},
        _show_embedding,
        vectors=_DTYPES[dtype],
    )


def _of_tokens() -> InputCommand:
    return InputCommand(
        lambda client, records, asked: client.embed_tokens_each(texts_of(records), **asked),
        lambda found: {
            "tokens": described(found.text_tokens),
            "embeddings": found.vectors,
            **rest(found),
        },
        _show_token_embeddings,
    )


def _sparse() -> InputCommand:
    return InputCommand(
        lambda client, records, asked: client.embed_sparse_each(texts_of(records), **asked),
        usual,
        _show_sparse,
    )


def _show_embedding(record: JsonObject) -> Iterator[str]:
    """How long a vector is, and how it begins."""
    yield f"{record['tokens']} tokens, {_vector(record['embedding'])}"


def _show_token_embeddings(record: JsonObject) -> Iterator[str]:
    """The same for each token."""
    for token, vector in zip(record["tokens"], record["embeddings"], strict=True):
        yield f"{token['token']:<16} {_vector(vector)}"


def _show_sparse(record: JsonObject) -> Iterator[str]:
    """How many weights there are, and the largest."""
    indices, values = record["indices"], record["values"]
    best = (-values).argsort(kind="stable")[:_VALUES]
    weights = " ".join(f"{indices[place]}:{values[place]:.4f}" for place in best)
    more = " …" if len(values) > _VALUES else ""
    count = f"{len(values)} of {record['dimensions']} weights"
    yield f"{record['tokens']} tokens, {count}: {weights}{more}"


def _vector(vector: Any) -> str:
    form = ".4f" if vector.dtype.kind == "f" else "d"
    values = " ".join(f"{value:{form}}" for value in vector[:_VALUES])
    more = " …" if len(vector) > _VALUES else ""
    return f"{len(vector)} values: {values}{more}"
