"""`bertd embed`, `bertd models` and `bertd export` as people run them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bertd_bench import contestants
from bertd_client.commands import embed, models
from bertd_export.cli import export
from bertd_server.settings import Settings
from click.testing import CliRunner
from conftest import RunningServer

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
    arguments = ["-", "--truncate", "--address", small.address]
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
        env={"FORCE_COLOR": "1" if terminal else None, "TERM": "xterm"},
    )
    assert result.exit_code == 1
    assert f"loading {source}" in " ".join(result.stderr.split())
    assert ("\x1b[" in result.stderr) == terminal
