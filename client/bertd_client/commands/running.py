"""What all commands share: their options, and the way from inputs to answers.

::

    entries ──groups──> Ask: one method of the client ──> records ──> output
                                                     └──> failures: standard error, exit code 1
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from bertd.help import GroupedCommand

from bertd_client.commands.entries import CommandInput
from bertd_client.commands.outputs import VECTORS, JsonObject, Show, opened, printable
from bertd_client.commands.securing import given_security, security_options

if TYPE_CHECKING:
    from bertd_client.calling.answered import Answered
    from bertd_client.client import Client
    from bertd_client.errors import BertdError

ENTRIES_AT_ONCE = 256
"""They are asked about together, and then written."""
INPUTS_PER_CALL = 64

Ask = Callable[["Client", list[JsonObject], dict[str, Any]], Sequence[Any]]
"""The outcomes of some inputs, from their fields and the client's options."""
Describe = Callable[[Any], JsonObject]
"""The fields of an answer."""

_Function = TypeVar("_Function", bound=Callable[..., None])
_HOW = frozenset(
    {
        "windows",
        "truncated_tokens",
        "tokenize_s",
        "queue_s",
        "compute_s",
        "total_s",
        "batch_sequences",
        "batch_tokens",
    }
)
_PLACE = frozenset({"start", "end", "start_byte", "end_byte"})
_KEY_HEADER = "send `authorization: Bearer KEY`"  # what the server says to any client
_OWN = ("address", "concurrency", "jsonl", "style", "output")
GROUPS = {
    "Texts in, answers out": ("pairs", "jsonl", "style", "output"),
    "Long texts": ("long_text", "truncation_side", "stride"),
    "The server and the call": ("address", "model", "timeout", "priority", "concurrency"),
    "TLS and keys": ("tls", "ca", "certificate", "key", "api_key"),
}
"""Options that commands share, as their help shows them."""


def client_command(name: str, short: str) -> Callable[[Callable[..., None]], GroupedCommand]:
    """A command of the client.

    Args:
        name: in the shell.
        short: its line in the list of commands.
    """
    return click.command(name, cls=GroupedCommand, groups=GROUPS, short_help=short)


def connection_options(function: _Function) -> _Function:
    """Where the server is, and how long to wait."""
    function = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds to wait for an answer.  [default: no limit]",
    )(security_options(function))
    return click.option(
        "--address",
        envvar="BERTD_SERVER",
        show_envvar=True,
        default="127.0.0.1:8001",
        show_default=True,
        callback=_checked,
        help="Where the server listens; several, separated by commas, take turns.",
    )(function)


def _checked(ctx: click.Context, param: click.Parameter, address: str) -> str:
    """Refuses what gRPC would take for something else."""
    from bertd_client.connection.channel import target

    del ctx, param
    try:
        target(address)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return address


def input_options(function: _Function) -> _Function:
    """Those of every command that takes inputs."""
    for option in (
        click.option("--model", help="Name of the model.  [default: the server's]"),
        click.option(
            "--jsonl", is_flag=True, help="Read JSON lines with these fields from standard input."
        ),
        click.option(
            "--format",
            "style",
            type=click.Choice(["text", "jsonl"]),
            help="How to print.  [default: text on a terminal, else jsonl]",
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            help="File for the answers, .jsonl (of embed also .npy or .parquet).",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            default=4,
            show_default=True,
            help="Calls at once.",
        ),
    ):
        function = option(function)
    return connection_options(function)


def task_options(*, windows: bool) -> Callable[[_Function], _Function]:
    """Those of every command that a model computes.

    Args:
        windows: whether it reads long texts in windows.
    """

    def decorate(function: _Function) -> _Function:
        policies = ["error", "truncate", *(["window"] if windows else [])]
        if windows:
            function = click.option(
                "--stride",
                type=click.IntRange(min=0),
                help="Tokens that neighbouring windows share.  [default: 0]",
            )(function)
        for option in (
            click.option(
                "--truncation-side",
                type=click.Choice(["right", "left"]),
                help="The end that truncate cuts.  [default: right]",
            ),
            click.option(
                "--long-text",
                type=click.Choice(policies),
                help="What to do with more tokens than the model reads.  [default: error]",
            ),
            click.option(
                "--priority",
                type=click.Choice(["interactive", "bulk"]),
                help="bulk goes after interactive calls.  [default: interactive]",
            ),
        ):
            function = option(function)
        return input_options(function)

    return decorate


@dataclass(frozen=True, slots=True)
class InputCommand:
    """A command that asks about inputs: what tells it from the others."""

    ask: Ask
    describe: Describe
    show: Show
    vectors: str = ""
    """NumPy's name of the numbers in vectors that can go into files; empty where none can."""
    hides: tuple[str, ...] = ()
    """Fields of an input that do not come back with its answer."""
    failures: Callable[[Any], Sequence[str]] = lambda _: ()
    """What has no answer within an answer."""


def run(command: InputCommand, inputs: Iterator[CommandInput], options: dict[str, Any]) -> None:
    """Ask about all inputs and write the answers; exit code 1 if one has none.

    Args:
        command: what to ask.
        inputs: in order.
        options: the command's own, which stay here, and the client's.
    """
    from bertd_client.calling.progress import Progress

    own = {name: options.pop(name) for name in _OWN}
    asked = {name: value for name, value in options.items() if value is not None}
    path: Path | None = own["output"]
    if path is not None and path.is_dir():
        raise click.UsageError(f"--output {path} is a folder: name a file")
    if path is not None and path.suffix in VECTORS and not command.vectors:
        raise click.UsageError(f"--output {path}: this command writes .jsonl")
    on_terminal = path is None and sys.stdout.isatty()
    style = own["style"] or ("text" if on_terminal else "jsonl")
    failed = 0
    with (
        connected(own["address"], own["concurrency"]) as client,
        Progress(None, "inputs", shown=not on_terminal) as progress,
        opened(path, style, command.show, command.vectors) as output,
    ):
        while group := list(islice(inputs, ENTRIES_AT_ONCE)):
            outcomes = _outcomes(command, client, group, asked)
            for entry, outcome in zip(group, outcomes, strict=True):
                problems = [outcome] if isinstance(outcome, str) else command.failures(outcome)
                for problem in problems:
                    failed += 1
                    progress.clear()
                    click.echo(printable(f"{entry.label}: {problem}"), err=True)
                record = {k: v for k, v in entry.fields.items() if k not in command.hides}
                more = {"error": outcome} if isinstance(outcome, str) else command.describe(outcome)
                output.write({**record, **more})
            progress.add(len(group))
    if failed:
        sys.exit(1)


def _outcomes(
    command: InputCommand, client: Client, group: list[CommandInput], options: dict[str, Any]
) -> list[Any]:
    """The answer of each entry, or what is wrong with it."""
    from bertd_client.errors import BertdError

    good = [entry.fields for entry in group if not entry.problem]
    answers = iter(command.ask(client, good, options) if good else ())
    found = [entry.problem or next(answers) for entry in group]
    return [worded(one) if isinstance(one, BertdError) else one for one in found]


def worded(error: BertdError) -> str:
    """The message with the command's names of things; the input's own stands before it."""
    message = re.sub(r"^(?:texts|inputs)\[\d+\](?:\.text)?(?=[ :])", "the text", error.message)
    message = re.sub(r"^inputs\[\d+\]\.(\w+)", r"the \1", message)
    message = re.sub(r"^query\b", "the query", message)
    return _with_flags(message)


def _with_flags(message: str) -> str:
    message = message.replace(_KEY_HEADER, "set BERTD_API_KEY, or give --api-key,")
    return re.sub(
        r"long_text = LONG_TEXT_POLICY_(\w+)",
        lambda match: f"--long-text {match[1].lower()}",
        message,
    )


def rest(outcome: Answered) -> JsonObject:
    """Of what came with an answer, that which is out of the ordinary."""
    record: JsonObject = {}
    if outcome.truncated_tokens:
        record["truncated_tokens"] = outcome.truncated_tokens
    if outcome.windows > 1:
        record["windows"] = outcome.windows
    return record


def usual(outcome: Answered) -> JsonObject:
    """An answer in JSON: "tokens", what was found, what is out of the ordinary."""
    record = {"tokens": outcome.tokens, **described(outcome, hide=_HOW)}
    return {**record, **rest(outcome)}


def described(value: Any, *, hide: Collection[str] = ()) -> Any:
    """A result as JSON has it: dataclasses as objects, where things stand last; tuples as lists."""
    if is_dataclass(value):
        names = [one.name for one in fields(value) if one.name not in hide]
        names.sort(key=_PLACE.__contains__)
        return {name: described(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [described(one) for one in value]
    return value


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends the process here, with the exit code that shells have for it.

    A signal may come between what gRPC does to begin a call and what it notes of it; to close the
    channel would then wait for that call for ever.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        sys.stdout.flush()
        os._exit(128 + signal.SIGINT)


@contextmanager
def connected(address: str, concurrency: int = 1) -> Iterator[Client]:
    """Opens a client whose errors become one line on standard error and exit code 1."""
    from bertd_client.client import Client
    from bertd_client.errors import BertdError, DeadlineExceeded, Overloaded, Unavailable

    try:
        opened_client = Client(
            address,
            concurrency=concurrency,
            inputs_per_call=INPUTS_PER_CALL,
            security=given_security(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        with opened_client as client, ended_by_ctrl_c():
            yield client
    except Unavailable as error:
        if error.reason:  # somebody is there
            raise click.ClickException(f"{address}: {error}") from error
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
        raise click.ClickException(_with_flags(str(error))) from error
