"""What the front end costs: measured beside a bare echo, and written into the document."""

from __future__ import annotations

from pathlib import Path

import pytest
from bertd_bench.cli import bench
from bertd_bench.load.front_end import FrontReport
from click.testing import CliRunner


@pytest.mark.slow
def test_the_front_end_is_measured_beside_an_echo(tiny_bundle: Path, tmp_path: Path) -> None:
    """Every kind of message on both servers; figures mean nothing, but all are there."""
    target = tmp_path / "front.json"
    arguments = ["front-end", str(tiny_bundle), "--seconds", "0.2", "--rounds", "1"]
    result = CliRunner().invoke(bench, [*arguments, "--json", str(target)])
    assert result.exit_code == 0, result.output
    report = FrontReport.model_validate_json(target.read_bytes())
    assert [row.texts for row in report.rows] == [1, 32, 1, 32]
    for row in report.rows:
        assert all(each > 0 for each in (*row.bertd, *row.echo))
    assert "| Embed, 1 text |" in result.output
