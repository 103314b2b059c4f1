"""``bertd embed`` and ``bertd models``."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from bertd_client.client import Client
    from bertd_client.errors import BertdError
    from bertd_client.messages import Embedding, ModelInfo

LINES_PER_CALL = 64
MAX_PORT = 65_535

_Function = TypeVar("_Function", bound=Callable[..., None])


def _connection_options(function: _Function) -> _Function:
    function = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds to wait for each call.  [default: no limit]",
    )(function)
    return click.option(
        "--address",
        envvar="BERTD_SERVER",
        show_envvar=True,
        default="127.0.0.1:8001",
        show_default=True,
        callback=_target,
        help="Where the server listens.",
    )(function)


def _target(ctx: click.Context, param: click.Parameter, address: str) -> str:
    """Refuses what gRPC would take for something else."""
    del ctx, param
    if not address or address.startswith(("http://", "https://")):
        raise click.BadParameter(f"{address!r} is no address: give host:port, without http://")
    port = address.rpartition(":")[2]
    if port.isdecimal() and int(port) > MAX_PORT:
        raise click.BadParameter(f"port {port} is above {MAX_PORT}")
    return address


@click.command()
@click.argument("texts", metavar="TEXT... | -", nargs=-1, required=True)
@_connection_options
@click.option("--model", default="", help="Name of the model.  [default: the server's]")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long for the model.")
@click.option("--bulk", is_flag=True, help="Go after interactive calls when the server is busy.")
@click.option(
    "--prompt-name", help="Prompt to put before each text; '' for none.  [default: the model's]"
)
def embed(  # noqa: PLR0913 - one parameter per option
    *,
    texts: tuple[str, ...],
    address: str,
    timeout: float | None,
    model: str,
    truncate: bool,
    bulk: bool,
    prompt_name: str | None,
) -> None:
    """Print the embedding of each TEXT, or of each line of standard input (-).

    Prints one JSON object per text, in order: {"text", "tokens", "embedding"}, or
    {"text", "error"} for a text that cannot be answered; then the exit code is 1.
    """
    failed = False
    lines = _stdin_lines() if texts == ("-",) else iter(texts)
    with _connect(address) as client:

        def ask(some: list[str]) -> list[Embedding | BertdError]:
            return client.embed_each(
                some,
                model=model,
                long_text="truncate" if truncate else "error",
                prompt_name=prompt_name,
                priority="bulk" if bulk else "interactive",
                timeout=timeout,
            )

        while chunk := list(islice(lines, LINES_PER_CALL)):
            for text, outcome in zip(chunk, _outcomes(ask, chunk), strict=True):
                failed |= isinstance(outcome, Exception)
                _print_json(_record(text, outcome))
    if failed:
        sys.exit(1)


def _outcomes(
    ask: Callable[[list[str]], list[Embedding | BertdError]], texts: list[str]
) -> Iterable[Embedding | BertdError]:
    """Asks for all texts at once, or one by one where the call failed because of its texts."""
    from bertd_client.errors import InvalidArgument

    try:
        return ask(texts)
    except InvalidArgument as error:
        if not any(violation.field.startswith("texts") for violation in error.violations):
            raise
        if len(texts) == 1:
            return [error]
    return (outcome for text in texts for outcome in _outcomes(ask, [text]))


def _record(text: str, outcome: Embedding | BertdError) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        # The record holds the text; its place in the call says nothing to the reader.
        return {"text": text, "error": re.sub(r"^texts\[\d+\]", "the text", outcome.message)}
    return {"text": text, "tokens": outcome.tokens, "embedding": outcome.vector.tolist()}


@click.command()
@_connection_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def models(*, address: str, timeout: float | None, as_json: bool) -> None:
    """List the models that the server has."""
    with _connect(address) as client:
        found = client.list_models(timeout=timeout)
    if as_json:
        for model in found:
            fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
            _print_json({**fields, "prompts": dict(model.prompts)})
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
            str(model.dimensions),
            str(model.max_tokens),
            "+".join(model.pooling),
        )
        for model in found
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    """Opens a client whose errors become one line on standard error and exit code 1."""
    from bertd_client.client import Client
    from bertd_client.errors import BertdError, DeadlineExceeded, Overloaded, Unavailable

    try:
        with Client(address) as client:
            yield client
    except Unavailable as error:
        raise click.ClickException(
            f"cannot reach the server: is `bertd serve` running at {address}? ({error.message})"
        ) from error
    except DeadlineExceeded as error:
        raise click.ClickException(
            f"no answer from {address} in time: raise --timeout, "
            "or see whether the server is overloaded"
        ) from error
    except Overloaded as error:
        raise click.ClickException(f"{error}; try again later") from error
    except BertdError as error:
        raise click.ClickException(str(error)) from error


def _stdin_lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _print_json(record: dict[str, Any]) -> None:
    # What UTF-8 cannot express, the escapes of "backslashreplace" write as JSON does.
    line = json.dumps(record, ensure_ascii=False)
    click.echo(line.encode("utf-8", "backslashreplace"))
