"""The comparison with peers: agreement before time, fair handling, honest tables."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd_bench.cli import bench
from bertd_bench.compare import agreement, document, interpreters, results, run
from bertd_bench.compare.process import PeerError
from bertd_bench.contestants import catalogue, handling, worker
from bertd_bench.contestants.peer import Peer, PeerUnavailable, Setting
from bertd_bench.harness import results as files
from bertd_bench.harness.noise import Noise
from bertd_bench.harness.rounds import SystemTimes
from click.testing import CliRunner
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st

RESULT = ROOT / "benchmarks/results/compare.json"


def lengths_of(texts: Sequence[str]) -> list[Any]:
    """A peer of known output: the length of each text, and of the longest in its call."""
    return [np.array([len(text), max(map(len, texts))], np.float32) for text in texts]


def never(setting: Setting) -> Any:
    raise PeerUnavailable(f"not with {setting.threads} threads")


def asked(monkeypatch: pytest.MonkeyPatch, *commands: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker answers that has peers of known output."""
    peers = {
        "lengths": Peer("lengths", "fp32", (), lambda _: lengths_of),
        "never": Peer("never", "fp32", ("no.such_module",), never),
    }
    monkeypatch.setattr(catalogue, "PEERS", peers)
    said = io.StringIO()
    worker.serve(io.StringIO("".join(json.dumps(each) + "\n" for each in commands)), said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


SETTING = {"checkpoint": "", "task": "feature-extraction", "threads": 3, "scratch": ""}


def build(peer: str) -> dict[str, Any]:
    return {"do": "build", "peer": peer, "setting": {**SETTING, "calibration": []}}


def test_a_worker_answers_what_its_peer_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """As given, one by one, and timed; a failure is an answer, not the end."""
    texts = {"do": "load", "index": 0, "texts": ["a", "bbb"], "lengths": [3, 9]}
    built, loaded, given_, alone, tried, turn, wrong = asked(
        monkeypatch,
        build("lengths"),
        texts,
        {"do": "answers", "index": 0, "handling": "padded"},
        {"do": "answers", "index": 0, "handling": "one by one"},
        {"do": "choose", "index": 0, "calls": 1},
        {"do": "turn", "index": 0, "repeats": 4, "handling": "by length"},
        {"do": "answers", "index": 7, "handling": "padded"},
    )
    assert built == loaded == {}
    assert given_["rows"] == [[[2], [1.0, 3.0]], [[2], [3.0, 3.0]]]
    assert alone["rows"] == [[[2], [1.0, 1.0]], [[2], [3.0, 3.0]]]
    assert list(tried["milliseconds"]) == list(handling.HANDLERS)
    assert len(turn["samples"]) == 4
    assert "KeyError" in wrong["error"]


def test_a_peer_says_why_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, build("never")) == [{"unavailable": "not with 3 threads"}]
    assert catalogue.PEERS["never"].missing() == ["no.such_module"]


@given(st.lists(st.integers(1, 512), min_size=1, max_size=40))
def test_sorting_loses_no_text_and_pads_none_to_twice_its_length(lengths: list[int]) -> None:
    found = handling.groups(lengths)
    assert sorted(place for group in found for place in group) == list(range(len(lengths)))
    for group in found:
        assert max(lengths[i] for i in group) < 2 * min(lengths[i] for i in group)
    texts = ["x" * length for length in lengths]
    rows = handling.by_length(lengths_of, texts, lengths)
    assert [row[0] for row in rows] == lengths


def test_answers_that_differ_are_refused() -> None:
    """By distance in fp32, by angle below it; what is no number never agrees."""
    eager = [np.array([0.6, 0.8], np.float32), np.array([3.0, 4.0], np.float32)]
    near = [each * np.float32(1.00001) for each in eager]
    agreement.check(agreement.agreement(near, eager), "fp32")
    longer = agreement.agreement([each * np.float32(1.1) for each in eager], eager)
    assert longer.difference == pytest.approx(0.1, rel=1e-3)
    assert longer.cosine == pytest.approx(1)
    agreement.check(longer, "int8")
    with pytest.raises(PeerError, match="more than 1e-04 for fp32"):
        agreement.check(longer, "fp32")
    turned = agreement.agreement([eager[0][::-1], np.array([4.0, -3.0], np.float32)], eager)
    with pytest.raises(PeerError, match=r"cosine of 0\.000 .* 0\.9 for int8"):
        agreement.check(turned, "int8")
    nothing = agreement.agreement([eager[0] * np.nan, eager[1]], eager)
    for precision in ("fp32", "int8"):
        with pytest.raises(PeerError, match="nan"):
            agreement.check(nothing, precision)
    with pytest.raises(PeerError, match="shape"):
        agreement.agreement(eager[:1], eager)


def test_bertd_is_in_every_group_that_fits_into_memory() -> None:
    peers = list(catalogue.PEERS.values())
    own = [peer for peer in peers if peer.own]
    cut = run.groups(peers, len(own) + 1 + 4)
    assert all(group[: len(own)] == own for group in cut)
    assert max(map(len, cut)) == len(own) + 4
    assert [peer for group in cut for peer in group if not peer.own] == [
        peer for peer in peers if not peer.own
    ]
    assert run.groups(own, 0) == [own]


def row(name: str, precision: str, milliseconds: Sequence[float], *, cpu: float = 1.9) -> Any:
    own = name.startswith("bertd")
    measured = SystemTimes(
        name=name,
        threads=2,
        warmup=None,
        rounds_ns=[[int(each * 1e6)] * 3 for each in milliseconds],
        turn_seconds=1.0,
        cpu_seconds=cpu,
    )
    return results.ContestantTimes(
        precision=precision,
        own=own,
        environment=0,
        handling="by length",
        tried={},
        difference=1e-6,
        cosine=0.9991,
        measured=measured,
    )


@pytest.fixture(scope="module")
def comparison() -> results.Comparison:
    """Of figures that are known: one peer slower, one even, one ahead, one over its budget."""
    case = results.Case(
        name="2 mixed",
        lengths=[8, 16],
        rows=[
            row("bertd", "fp32", [2, 2.1, 1.9, 2, 2]),
            row("bertd int8", "int8", [1] * 5),
            row("PyTorch eager", "fp32", [4] * 5, cpu=2.5),
            row("ONNX Runtime", "fp32", [1.8, 2.3, 2, 2.1, 1.9]),
            row("OpenVINO int8", "int8", [0.5] * 5),
        ],
        refused={"CTranslate2": "its answers differ"},
        noise=Noise(load=0.9, steal=0.0, others=0.0, calibration_ns=[[1]], spread=0.0),
    )
    return results.Comparison(
        command="bertd bench compare",
        rounds=5,
        machine=files.read(RESULT, results.Comparison, "compare").machine,
        environments=[{}],
        subjects=[
            results.Subject(
                model="tiny",
                task="feature-extraction",
                threads=2,
                skipped={"Infinity": "not installed: infinity_emb"},
                cases=[case],
            )
        ],
    )


def test_rows_where_bertd_is_not_ahead_are_marked(comparison: results.Comparison) -> None:
    text = document.render([("x.json", comparison)])
    assert "| **bertd** | 2.00 ms |" in text
    assert "| PyTorch eager | 2.00x (" in text
    assert "even** |" in text.split("| ONNX Runtime |")[1].splitlines()[0]
    assert "| OpenVINO int8 | **0.50x (0.50 to 0.50) behind** |" in text
    assert "2.50 **over its 2** | 2 mixed: by length |" in text
    assert "- Infinity: not installed: infinity_emb" in text
    assert "- CTranslate2, 2 mixed: its answers differ" in text
    assert "The machine was noisy in 1 of 1 cases" in text
    short = document.summary(
        [("x.json", comparison), ("x-base.json", comparison.model_copy(deep=True))]
    )
    assert "| 2 mixed, tiny |" in short
    assert "behind**, OpenVINO int8 |" in short
    assert ", ONNX Runtime |" in short
    assert "noisy" in short


def test_a_large_result_is_compressed(
    comparison: results.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = files.write(comparison, tmp_path / "a.json")
    monkeypatch.setattr(files, "COMPRESS_BYTES", 100)
    packed = files.write(comparison, tmp_path / "b.json")
    assert packed.name == "b.json.gz"
    first, second = (files.read(path, results.Comparison, "compare") for path in (plain, packed))
    assert first == second == comparison
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match="not a result of `bertd bench compare`"):
        files.read(tmp_path / "c.json", results.Comparison, "compare")


def test_a_peer_that_is_unknown_is_refused_and_all_are_named() -> None:
    with pytest.raises(PeerError, match="no peer is called 'Torch': choose among bertd, bertd int"):
        interpreters.chosen(["Torch"], [])


@pytest.mark.slow
def test_eager_and_bertd_in_processes_of_their_own(tmp_path: Path) -> None:
    """The whole way on a tiny model: figures mean nothing, but all are there."""
    target = tmp_path / "compare.json"
    arguments = ["compare", "--model", "tiny", "--precision", "fp32", "--lengths", "8"]
    arguments += ["--peer", "PyTorch eager", "--threads", "1", "--rounds", "2"]
    arguments += ["--steady-seconds", "0.05", "--turn-seconds", "0.01", "--json", str(target)]
    arguments += ["--accept-noise"]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    [subject] = files.read(target, results.Comparison, "compare").subjects
    assert [case.name for case in subject.cases] == ["8 tokens", "16 mixed"]
    for case in subject.cases:
        assert [each.name for each in case.rows] == ["bertd", "bertd over gRPC", "PyTorch eager"]
        assert case.noise is not None
        assert len(case.noise.calibration_ns) == 2
        for each in case.rows:
            assert each.difference is not None
            assert each.difference <= agreement.TOLERANCE
            assert not each.measured.over_budget
            assert [len(samples) >= 2 for samples in each.measured.rounds_ns] == [True, True]
    eager = subject.cases[1].row("PyTorch eager")
    assert eager is not None
    assert set(eager.tried) == set(handling.HANDLERS)


def test_peers_are_listed_with_what_they_lack() -> None:
    """Eager is installed here; what another needs is named, or its interpreter."""
    listed = CliRunner().invoke(bench, ["compare", "--list", "--peers-python", sys.executable])
    assert listed.exit_code == 0, listed.output
    lines = {line[:32].strip(): line[34:] for line in listed.output.splitlines()}
    assert set(lines) == set(catalogue.PEERS)
    assert lines["PyTorch eager"] == f"fp32  {sys.executable}"
