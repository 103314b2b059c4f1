"""Commands whose inputs are several texts: rerank, answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertd_client.commands.entries import (
    CommandInput,
    entries,
    parsed_object,
    reads_stdin,
    stdin_lines,
)
from bertd_client.commands.outputs import JsonObject, place
from bertd_client.commands.running import (
    InputCommand,
    client_command,
    run,
    task_options,
    usual,
    worded,
)

if TYPE_CHECKING:
    from bertd_client.client import Client
    from bertd_client.errors import BertdError
    from bertd_client.results import Ranked


@client_command("rerank", "Documents by their relevance to a query.")
@click.argument("query", required=False)
@click.argument("documents", metavar="[DOCUMENT]... | -", nargs=-1)
@task_options(windows=True)
@click.option(
    "--prompt-name", help="Prompt to put before the query; '' for none.  [default: the model's]"
)
@click.option(
    "--top-k",
    "--top-n",
    "top_n",
    type=click.IntRange(min=1),
    help="Documents to give.  [default: all]",
)
@click.option(
    "--score-function",
    type=click.Choice(["sigmoid", "none"]),
    help="How scores come from logits.  [default: as the model says]",
)
def rerank(*, query: str | None, documents: tuple[str, ...], **options: Any) -> None:
    """Order DOCUMENTs, or the lines of standard input (-), by relevance to QUERY.

    JSON lines have "query" and "documents", each line an order of its own. Answers have "ranking",
    best first, with the "index" of each document; documents without a score are in "errors".
    """
    command = InputCommand(
        _rank,
        _Ranking.described,
        _show_ranking,
        hides=("documents",),
        failures=_Ranking.failures,
    )
    run(command, _rankings(query, documents, jsonl=options["jsonl"]), options)


def _rankings(
    query: str | None, documents: tuple[str, ...], *, jsonl: bool
) -> Iterator[CommandInput]:
    given = () if query is None else (query, *documents)
    if jsonl:
        reads_stdin(given, jsonl=True)
        for number, line in enumerate(stdin_lines(), 1):
            found, problem = parsed_object(line)
            if not problem and not _is_ranking(found):
                problem = 'give "query", a string, and "documents", a list of strings'
            yield CommandInput(f"line {number}", found, problem)
        return
    if query is None:
        raise click.UsageError("give a QUERY, or --jsonl with a query in each line")
    if reads_stdin(documents, jsonl=False):
        documents = tuple(stdin_lines())
    yield CommandInput("query", {"query": query, "documents": list(documents)})


def _is_ranking(found: dict[str, Any]) -> bool:
    documents = found.get("documents")
    return (
        isinstance(found.get("query"), str)
        and isinstance(documents, list)
        and all(isinstance(one, str) for one in documents)
    )


def _rank(
    client: Client, records: Sequence[dict[str, Any]], asked: dict[str, Any]
) -> list[_Ranking | BertdError]:
    """One call for each query."""
    from bertd_client.errors import BertdError, InvalidArgument

    found: list[_Ranking | BertdError] = []
    for record in records:
        documents = record["documents"]
        try:
            outcomes = client.rerank_each(record["query"], documents, **asked)
        except InvalidArgument as error:  # the query's fault
            found.append(error)
            continue
        errors = [one for one in outcomes if isinstance(one, BertdError)]
        ranked = [one for one in outcomes if not isinstance(one, BertdError)]
        found.append(_Ranking(documents, ranked, errors))
    return found


@dataclass(frozen=True, slots=True)
class _Ranking:
    documents: list[str]
    ranked: list[Ranked]
    errors: list[BertdError]

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        record: dict[str, Any] = {
            "ranking": [
                {**usual(one), "document": self.documents[one.index]} for one in self.ranked
            ]
        }
        if self.errors:
            record["errors"] = [
                {
                    "index": one.index,
                    "error": worded(one),
                    "document": self.documents[one.index or 0],
                }
                for one in self.errors
            ]
        return record

    def failures(self) -> list[str]:
        """What standard error says of documents."""
        return [f"document {(one.index or 0) + 1}: {worded(one)}" for one in self.errors]


@client_command("answer", "Answers to questions, found in a context.")
@click.argument("questions", metavar="[QUESTION]... | -", nargs=-1)
@click.option("--context", help="The text in which answers are sought.")
@click.option(
    "--context-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with that text, UTF-8.",
)
@task_options(windows=True)
@click.option("--top-k", type=click.IntRange(1, 20), help="Answers to give.  [default: 1]")
@click.option(
    "--max-answer-tokens", type=click.IntRange(min=1), help="Longest answer.  [default: 15]"
)
@click.option("--allow-no-answer", is_flag=True, default=None, help="Let 'there is none' compete.")
def answer(
    *,
    questions: tuple[str, ...],
    context: str | None,
    context_file: Path | None,
    **options: Any,
) -> None:
    """Answer each QUESTION, or each line of standard input (-), from a context.

    JSON lines have "question" and "context". Answers have "spans": context[start:end], in code
    points.
    """
    if context_file is not None:
        try:
            context = context_file.read_text(encoding="utf-8")
        except ValueError as error:
            raise click.UsageError(f"--context-file {context_file}: no UTF-8 ({error})") from error
    if options["jsonl"] == (context is not None):
        raise click.UsageError(
            "give --context or --context-file, or --jsonl with a context in each line"
        )
    more = None if context is None else {"context": context}
    command = InputCommand(
        lambda client, records, asked: client.answer_each(
            [(record["question"], record["context"]) for record in records], **asked
        ),
        usual,
        _show_spans,
        hides=("context",),
    )
    fields = ("question", "context")
    run(command, entries(questions, jsonl=options["jsonl"], fields=fields, more=more), options)


def _show_ranking(record: JsonObject) -> Iterator[str]:
    """Scores with their documents."""
    for one in record["ranking"]:
        yield f"{one['score']:8.4f}  {one['index'] + 1:>3}  {one['document']}"


def _show_spans(record: JsonObject) -> Iterator[str]:
    """Answers with their places."""
    for one in record["spans"]:
        yield f"{one['score']:8.4f}  " + (
            "no answer" if one["no_answer"] else f"{place(one)}  {one['text']}"
        )
