"""The benchmarks' own arithmetic: exact texts, fair turns, right percentiles."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import click
import pytest
from bertd_bench.cli import COMMANDS, GROUPS, bench
from bertd_bench.exports.speed import quartiles
from bertd_bench.harness import rounds, texts
from bertd_bench.harness.system import Calls
from click.testing import CliRunner
from helpers.small_tokenizer import small_tokenizer


@pytest.mark.parametrize("tokens", [3, 8, 32, 128])
def test_a_text_has_exactly_so_many_tokens(tokens: int) -> None:
    """Special tokens count."""
    tokenizer = small_tokenizer()
    encoding = tokenizer.encode(texts.build_text(tokenizer, tokens, random.Random(1)))
    assert len(encoding) == tokens
    assert "[UNK]" not in encoding.tokens


def test_a_length_that_cannot_be_met_is_an_error() -> None:
    """Two tokens are the special ones alone."""
    with pytest.raises(ValueError, match="exactly 2 tokens"):
        texts.build_text(small_tokenizer(), 2, random.Random(1))


def test_quartiles_of_known_samples() -> None:
    """0 to 100 ms: each percentile is its own number; nothing measured is no zero."""
    samples = [number * 1_000_000 for number in range(101)]
    random.Random(0).shuffle(samples)
    found = quartiles(samples)
    assert (found.first, found.median, found.third) == pytest.approx((25.0, 50.0, 75.0))
    assert found.calls == 101
    assert found.spread == pytest.approx(1)
    with pytest.raises(ValueError, match="no samples"):
        quartiles([])


def test_every_contestant_has_one_turn_in_every_round() -> None:
    """Turns interleave in a changing order, and none is lost."""
    called: list[str] = []
    schedule = rounds.Schedule(rounds=20, repeats=3, warmups=1, pause_seconds=0)
    names = ["a", "b", "c"]
    calls = {name: partial(called.append, name) for name in names}
    seen = rounds.run(Calls.each(calls, 1), 0, schedule, random.Random(0))
    samples = {each.name: each.samples_ns for each in seen}

    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys(names, 60)
    assert Counter(called) == dict.fromkeys(names, 80)
    turns = called[::4]
    assert [name for name in turns for _ in range(4)] == called  # a turn is not interrupted
    taken = [tuple(turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert all(sorted(each) == names for each in taken)
    assert len(set(taken)) > 1  # the order changes


def test_results_that_could_not_be_written_are_refused_before_measuring(tmp_path: Path) -> None:
    """A minute of measuring is not lost to a folder that is not there."""
    target = tmp_path / "missing" / "results.json"
    result = CliRunner().invoke(bench, ["compare", "--json", str(target)])
    assert result.exit_code == 2
    assert "is not a folder" in result.output


@pytest.mark.parametrize("name", ["hardware", "regress"])
def test_a_folder_that_is_no_bundle_is_refused_before_measuring(name: str, tmp_path: Path) -> None:
    """With the remedy, not with what the first read of it raises."""
    done = CliRunner().invoke(bench, [name, str(tmp_path)])
    assert done.exit_code == 2
    assert f"{tmp_path} is not a bundle" in done.output
    assert "bertd export" in done.output


def test_the_help_page_shows_groups_and_imports_no_command() -> None:
    """One line each; what a command needs is imported when it is asked for."""
    program = (
        "import sys; from bertd_bench.cli import bench; bench(['--help'], standalone_mode=False); "
        "print(*sorted(sys.modules), sep='\\n')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    for title, commands in GROUPS.items():
        assert f"{title}:" in shown.stdout
        for name, found in commands.items():
            assert re.search(rf"^  {name} +{re.escape(found.help)}$", shown.stdout, re.MULTILINE)
    imported = shown.stdout.splitlines()
    assert "click" in imported
    assert not {"numpy", "torch", "pydantic", "grpc", "bertd_bench.options"} & set(imported)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there(name: str) -> None:
    shown = CliRunner().invoke(bench, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    command = bench.get_command(click.Context(bench), name)
    assert command is not None
    assert command.name == name
