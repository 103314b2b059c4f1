"""The commands of a client and `bertd export` as people run them."""

from __future__ import annotations

import importlib
import io
import json
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
from bertd.bundle import Task
from bertd_bench.contestants import eager as contestants
from bertd_client.calling.progress import Progress
from bertd_client.cli import GROUPS as COMMAND_GROUPS
from bertd_client.cli import main
from bertd_client.commands import COMMANDS as OURS
from bertd_client.commands.embedding import embed
from bertd_client.commands.pairs import answer, rerank
from bertd_client.commands.running import GROUPS
from bertd_client.commands.served import models
from bertd_client.commands.texts import classify, tag, zero_shot
from bertd_export.cli import GROUPS as EXPORT_GROUPS
from bertd_export.cli import export
from bertd_server.config.settings import Settings
from click.testing import CliRunner, Result
from helpers.paths import ROOT
from helpers.rpcs import COMMANDS
from helpers.running import RunningServer

Started = Callable[[Task], RunningServer]

ARTICLE = (
    "지난 주말 부산의 한 작은 서점이 문을 연 지 서른 해를 맞았다.",
    "주인 김 씨는 손님들이 보내 준 편지를 벽에 붙여 두었다.",
    "“책을 사지 않아도 괜찮으니 쉬었다 가세요.” 그는 늘 그렇게 말한다.",
    "A small bookshop in Busan turned thirty last weekend.",
    "Its owner has pinned the letters of his customers to the wall.",
    "내일 서울은 흐리고 오후에 비가 내리겠습니다.",
)


def test_an_article_line_by_line_gives_the_vectors_of_pytorch(
    server: RunningServer, checkpoint: Path
) -> None:
    """Korean and English sentences on standard input, as UTF-8, in order."""
    result = CliRunner().invoke(
        embed, ["-", "--address", server.address], input="\n".join(ARTICLE).encode()
    )
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["text"] for record in records] == list(ARTICLE)
    ours = np.array([record["embedding"] for record in records], np.float32)
    theirs = contestants.eager(str(checkpoint), 1)(ARTICLE)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    alike = ours @ ours.T
    assert alike[0, 0] == pytest.approx(1, abs=1e-5)
    assert alike[3, 4] > alike[3, 5]  # two sentences on the shop, and one on the weather


def test_a_line_that_cannot_be_answered_has_an_error_of_its_own(server: RunningServer) -> None:
    """An empty line, bytes that are no UTF-8, a huge line: exit code 1, the others answered."""
    lines = [b"good", b"", b"\xff\xfe\x00", b"word " * 2000, "끝".encode()]
    result = CliRunner().invoke(embed, ["-", "--address", server.address], input=b"\n".join(lines))
    assert result.exit_code == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["embedding" in record for record in records] == [True, False, False, False, True]
    errors = [record["error"] for record in records if "error" in record]
    for error, words in zip(errors, ["is empty", "UTF-8", "2002 tokens"], strict=True):
        assert words in error


def test_nobody_at_the_address_is_one_line_with_the_remedy() -> None:
    """No traceback; exit code 1."""
    result = CliRunner().invoke(models, ["--address", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "is `bertd serve` running at 127.0.0.1:1?" in result.output


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8001", "without http://"),
        ("", "give host:port"),
        ("127.0.0.1:99999", "port 99999 is above 65535"),
    ],
)
def test_what_is_no_address_is_refused_before_a_call(address: str, words: str) -> None:
    """gRPC would look for a host named http, or wrap the port."""
    result = CliRunner().invoke(models, ["--address", address])
    assert result.exit_code == 2
    assert words in result.output


def test_a_call_that_is_too_large_is_split(
    bundle_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines that fit alone are answered; the one that does not has an error of its own."""
    small = RunningServer(bundle_folder, Settings(address="127.0.0.1:0", max_message_bytes=2000))
    lines = "\n".join(["first " * 200, "second " * 150, "third " * 900])
    arguments = ["-", "--long-text", "truncate", "--address", small.address]
    result = CliRunner().invoke(embed, arguments, input=lines.encode())
    small.stop()
    capfd.readouterr()  # gRPC's own log
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record.get("tokens") for record in records] == [202, 152, None]
    assert "the limit is 2000: send fewer or shorter texts" in records[2]["error"]


@pytest.mark.parametrize("terminal", [True, False])
def test_export_tells_its_progress(tmp_path: Path, *, terminal: bool) -> None:
    """A line that is redrawn on a terminal, plain lines elsewhere."""
    source = tmp_path / "empty"
    source.mkdir()
    result = CliRunner().invoke(
        export,
        [str(source), "--output", str(tmp_path / "bundle")],
        env={"FORCE_COLOR": "1" if terminal else None, "TERM": "xterm", "COLUMNS": "200"},
    )
    assert result.exit_code == 1
    assert f"[1/6] loading {source}" in " ".join(result.stderr.split())
    assert ("\x1b[" in result.stderr) == terminal


def run(command: click.Command, server: RunningServer, *arguments: str, stdin: str = "") -> Result:
    """A command with the server's address."""
    given = [*arguments, "--address", server.address]
    return CliRunner().invoke(command, given, input=stdin.encode())


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("command", "task", "arguments", "line", "field", "words"),
    COMMANDS,
    ids=[f"{row[0].name}-{row[4]}" for row in COMMANDS],
)
def test_every_command_takes_texts_lines_and_json_lines(  # noqa: PLR0913, PLR0917 - a row of the table
    command: click.Command,
    task: Task,
    arguments: list[str],
    line: dict[str, Any],
    field: str,
    words: str,
    task_server: Started,
) -> None:
    """The same answer whichever way; other fields of a JSON line come back; text for people."""
    server = task_server(task)
    given = run(command, server, *arguments)
    assert given.exit_code == 0, given.output
    (record,) = records(given)
    assert record[field]

    first = 2 if command is rerank else 1
    texts, options = arguments[:first], arguments[first:]
    if command is rerank:
        texts, options = [arguments[0], "-"], arguments[3:]
        lines = "\n".join(arguments[1:3])
    else:
        texts, lines = ["-"], arguments[0]
    assert records(run(command, server, *texts, *options, stdin=lines)) == [record]

    if command is answer:
        options = options[2:]
    options = [one for one in options if one != "--pairs"]
    stdin = json.dumps({"id": 7, **line}) + "\nno JSON\n[]\n{}\n"
    result = run(command, server, "--jsonl", *options, stdin=stdin)
    found = records(result)
    assert result.exit_code == 1
    assert found[0] == {"id": 7, **record}
    assert ["error" in one for one in found] == [False, True, True, True]
    for name in ("line 2: no JSON", "line 3: a JSON list", "line 4: "):
        assert name in result.stderr

    shown = run(command, server, *arguments, "--format", "text")
    assert words in shown.stdout
    assert shown.stdout.splitlines()[0] == next(iter(line.values()))


def test_each_failed_input_is_named(task_server: Started) -> None:
    """On standard error and in its record; the flag that helps is named; exit code 1."""
    server = task_server("feature-extraction")
    lines = "\n".join(["the cat", "", "cat " * 80, "a mat"])
    result = run(embed, server, "-", stdin=lines)
    assert result.exit_code == 1
    empty, long = result.stderr.splitlines()
    assert empty.startswith("line 2 (''): the text is empty: send a text")
    assert long.startswith("line 3 ('cat cat")
    assert "82 tokens" in long
    assert "(--long-text truncate)" in long
    assert [one.get("error", "") in result.stderr for one in records(result)] == [True] * 4
    assert run(embed, server, "-", "--long-text", "window", stdin="cat " * 80).exit_code == 0

    ranked = run(rerank, task_server("text-ranking"), "the cat", "a mat", " ", "the sea")
    assert ranked.exit_code == 1
    assert "document 2: " in ranked.stderr
    (record,) = records(ranked)
    assert sorted(one["document"] for one in record["ranking"]) == ["a mat", "the sea"]
    assert [one["index"] for one in record["errors"]] == [1]
    assert "the query" in run(rerank, task_server("text-ranking"), " ", "a mat").stderr

    untabbed = run(classify, task_server("zero-shot-classification"), "--pairs", "the cat")
    assert "no tab" in untabbed.stderr


def test_vectors_go_into_files(task_server: Started, tmp_path: Path) -> None:
    """One row for each input, in order, in an array or a table; no half-written file."""
    server = task_server("feature-extraction")
    lines = "\n".join(["the cat", "", *["a mat"] * 300])
    expected = [one.get("embedding") for one in records(run(embed, server, "-", stdin=lines))]
    array, table = tmp_path / "vectors.npy", tmp_path / "vectors.parquet"
    for path in (array, table, tmp_path / "vectors.jsonl"):
        result = run(embed, server, "-", "--output", str(path), stdin=lines)
        assert result.exit_code == 1
        assert result.stdout == ""
    vectors = np.load(array)
    assert vectors.dtype == np.float32
    assert np.isnan(vectors[1]).all()
    assert [row.tolist() for row in np.delete(vectors, 1, axis=0)] == expected[:1] + expected[2:]
    rows = pq.read_table(table).to_pylist()
    assert [row["embedding"] for row in rows] == expected
    assert [row["text"] for row in rows] == lines.split("\n")
    assert "is empty" in rows[1]["error"]
    assert [row["tokens"] for row in rows[:2]] == [4, None]
    kept = (tmp_path / "vectors.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).get("embedding") for line in kept] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vectors.jsonl",
        "vectors.npy",
        "vectors.parquet",
    ]

    ranges = tmp_path / "ranges.npy"
    np.save(ranges, np.stack([np.nanmin(vectors, axis=0), np.nanmax(vectors, axis=0)]))
    small = ["-", "--output-dtype", "int8", "--ranges", str(ranges), "--output"]
    for path in (array, table):
        assert run(embed, server, *small, str(path), stdin=lines).exit_code == 1
    found = np.load(array)
    assert (found.dtype, found.shape) == (np.int8, vectors.shape)
    assert not found[1].any()  # it has no NaN
    rows = pq.read_table(table).to_pylist()
    assert [row["embedding"] for row in rows if not row["error"]] == np.delete(found, 1, 0).tolist()

    before = array.read_bytes()
    failed = run(embed, server, "the", "--model", "nobody", "--output", str(array))
    assert failed.exit_code == 1
    assert "served: " in failed.stderr
    assert array.read_bytes() == before
    nowhere = run(embed, server, "the", "--output", str(tmp_path / "none" / "x.npy"))
    assert "cannot write" in nowhere.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (tag, ["a", "--output", "x.npy"], "this command writes .jsonl"),
        (embed, ["a", "--jsonl"], "give no texts as arguments"),
        (answer, ["a"], "give --context or --context-file"),
        (rerank, [], "give a QUERY"),
        (zero_shot, ["a"], "--label"),
        (classify, ["a", "--long-text", "window"], "'window' is not one of"),
        (embed, ["a", "--address", "a:1,b"], "must be host:port"),
        (embed, ["a", "--sparse", "--dimensions", "3"], "--dimensions does not go with --sparse"),
        (embed, ["a", "--per-token", "--ranges", "0,1"], "--ranges does not go with --per-token"),
        (embed, ["a", "--max-active-dims", "3"], "--max-active-dims goes with --sparse"),
        (embed, ["a", "--sparse", "--per-token"], "give one"),
        (embed, ["a", "--ranges", "0,1,2"], "give LOW,HIGH"),
        (embed, ["a", "--ranges", "low,high"], "could not convert"),
        (embed, ["a", "--ranges", "nowhere.npy"], "No such file"),
    ],
)
def test_misuse_is_told_before_a_call(
    command: click.Command, arguments: list[str], words: str
) -> None:
    """Exit code 2; nobody listens there."""
    result = CliRunner().invoke(command, arguments, env={"BERTD_SERVER": "127.0.0.1:1"})
    assert result.exit_code == 2
    assert words in result.stderr


def process(server: RunningServer) -> subprocess.Popen[bytes]:
    """`bertd embed -` that has answered some lines and waits for more."""
    command = [sys.executable, "-m", "bertd_client.cli", "embed", "-", "--address", server.address]
    pipe = subprocess.PIPE
    running = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(b"the cat\n" * 256)
    running.stdin.flush()
    assert json.loads(running.stdout.readline())["tokens"] == 4
    return running


def test_ctrl_c_and_a_broken_pipe_end_a_command_quietly(task_server: Started) -> None:
    """No traceback; not exit code 0, but that of shells."""
    server = task_server("feature-extraction")
    with process(server) as stopped, process(server) as broken:
        stopped.send_signal(signal.SIGINT)
        assert broken.stdout is not None
        broken.stdout.close()
        broken.stdout = None
        _, interrupted = stopped.communicate()
        _, unheard = broken.communicate(b"a mat\n" * 10_000)
    assert (stopped.returncode, interrupted.strip()) == (130, b"Aborted!")
    assert (broken.returncode, unheard) == (1, b"")


class Terminal(io.StringIO):
    """Text that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_alone() -> None:
    """A bar where the total is known, a count elsewhere, and nothing left behind."""
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with Progress(4, "texts", stream=stream) as progress:
            progress.add(2)
            progress.add(2)
        with Progress(None, "inputs", stream=stream) as progress:
            progress.add(1234)
    assert file.getvalue() == ""
    assert "] 2/4 texts" in terminal.getvalue()
    assert f"[{'#' * 30}] 4/4 texts" in terminal.getvalue()
    assert "\r1,234 inputs, " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_every_command_of_the_project_can_be_loaded() -> None:
    """The entry points name commands, by the names that they have."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        points = tomllib.load(file)["project"]["entry-points"]["bertd.commands"]
    for name, value in points.items():
        module, _, attribute = value.partition(" ")[0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        assert command.name == name
    ours = {command.name for command in OURS}
    assert {row[0].name for row in COMMANDS} == ours - {"models"}
    assert ours <= {*main.list_commands(click.Context(main))}


def test_the_help_of_each_command_has_its_own_options_first_and_each_once() -> None:
    """What a command is about comes before what all share; a group names no option in vain."""
    shared = {name for names in GROUPS.values() for name in names}
    seen = set()
    for command in [*OURS, export]:
        groups = GROUPS if command is not export else EXPORT_GROUPS
        shown = CliRunner().invoke(command, ["--help"], terminal_width=200).output
        own = re.split("|".join(f"\n{title}:\n" for title in groups), shown)[0]
        flags = re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", shown, re.MULTILINE)
        known = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        assert sorted(flags) == sorted(["--help", *(one.opts[0] for one in known)]), command.name
        if command is not export:
            seen |= {str(one.name) for one in known} & shared
            assert "  --address" not in own
    assert seen == shared


def test_the_list_of_commands_is_in_groups_and_cuts_no_line() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    listed = {name for names in COMMAND_GROUPS.values() for name in names}
    assert listed == {*main.list_commands(click.Context(main))}
    assert "..." not in shown.partition("\n\n")[2]
    assert "Other commands" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "Serve BERT-family encoders"),
        (["inspect", "{folder}"], 1, "has no bertd.json"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["embed", "a", "--stride", "x"], 2, "'x' is not a valid integer"),
        (["models", "--ca", "{file}"], 2, "holds no CERTIFICATE in PEM"),
        (["models", "--cert", "{file}"], 2, "go together: give both"),
        (["serve", "{file}"], 2, "is a file: give the folder"),
    ],
)
def test_exit_codes_are_those_of_the_document(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    """Of docs/api.md, with the reason in the last line."""
    file = tmp_path / "file"
    file.touch()
    result = CliRunner().invoke(main, [one.format(folder=tmp_path, file=file) for one in arguments])
    assert result.exit_code == code
    assert words in (result.output if code == 0 else result.output.splitlines()[-1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-m", "bertd_client.cli", "keys", "new", "--id", "me"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("cannot be written: No space left on device")


def test_dimensions_are_shown_where_there_are_some(task_server: Started) -> None:
    embeds, fills = task_server("feature-extraction"), task_server("fill-mask")
    assert json.loads(run(models, embeds, "--format", "jsonl").stdout)["dimensions"] == 32
    assert json.loads(run(models, fills, "--format", "jsonl").stdout)["dimensions"] is None
    assert "  0  " not in run(models, fills).stdout
