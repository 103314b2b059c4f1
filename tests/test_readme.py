"""README's measured numbers are those of the committed result."""

from __future__ import annotations

from pathlib import Path

import pytest
from bertd_bench import readme, sections
from bertd_bench.cli import bench
from bertd_bench.report import Report, read_json, write_json
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
LINK = "benchmarks/results/compare-minilm.json"
BEGIN = sections.begin("readme")


@pytest.fixture(scope="module")
def report() -> Report:
    return read_json(ROOT / LINK)


def test_the_readme_says_what_was_measured(report: Report) -> None:
    """`bertd bench readme` would change nothing."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == sections.replaced(text, BEGIN, readme.render(report, LINK))


def test_the_command_rewrites_the_section_alone(report: Report, tmp_path: Path) -> None:
    """A new result changes the numbers and leaves the text around them."""
    slower = report.model_dump()
    for result in slower["cases"][0]["results"]:
        if result["contestant"] == report.baseline:
            result["summary"]["median"] *= 2
    write_json(Report.model_validate(slower), tmp_path / "new.json")
    target = tmp_path / "README.md"
    target.write_text(f"before\n{BEGIN}\nold\n{sections.END}\nafter\n", encoding="utf-8")

    arguments = ["readme", "--json", str(tmp_path / "new.json"), "--readme", str(target)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    text = target.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n\n")
    assert text.endswith(f"\n\n{sections.END}\nafter\n")
    assert "old" not in text
    median = report.cases[0].results[0].summary.median
    assert f"| 8 tokens | {2 * median:.1f} ms |" in text
    assert "(new.json)" in text
    assert "unchanged" in CliRunner().invoke(bench, arguments).output


def test_a_readme_without_its_comments_is_left_alone(tmp_path: Path) -> None:
    """Nothing is guessed: the command says which lines it needs."""
    target = tmp_path / "README.md"
    target.write_text("no section here\n", encoding="utf-8")
    arguments = ["readme", "--json", str(ROOT / LINK), "--readme", str(target)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 1
    assert BEGIN in result.output
    assert target.read_text(encoding="utf-8") == "no section here\n"


def test_another_benchmark_is_no_comparison(report: Report) -> None:
    """Cold starts have no contestants to compare in a table."""
    with pytest.raises(ValueError, match="bertd bench compare"):
        readme.render(report.model_copy(update={"benchmark": "cold-start"}), LINK)
