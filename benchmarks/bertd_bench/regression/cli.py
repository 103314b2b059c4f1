"""`bertd bench regress`, `diff` and `agree`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertd_bench import options

if TYPE_CHECKING:
    from bertd_bench.regression.baseline import Baseline, Change

BASELINE = Path("benchmarks/results/baseline.json")


class CannotCompare(click.ClickException):
    """Nothing can be said: exit 2, since 1 means slower."""

    exit_code = 2


@click.command()
@options.bundle
@click.option(
    "--baseline",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=BASELINE,
    show_default=True,
)
@click.option("--update", is_flag=True, help="Write the baseline instead of comparing with it.")
@click.option(
    "--bound",
    type=click.FloatRange(min=1, min_open=True),
    default=1.1,
    show_default=True,
    help="How many times as long a case may take before it counts as slower.",
)
@options.rounds(15, 2)
@options.threads
@options.json_path
def regress(  # noqa: PLR0913, PLR0917 - click's parameters
    bundle: Path | None,
    path: Path,
    update: bool,
    bound: float,
    rounds: int,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Compare with the committed baseline, in times of a kernel; exit 1 if surely slower.

    A case that seems slower is measured once more, and counts if it is slower again. Exit 2 where
    nothing can be said. BUNDLE is the embedded default model unless given.
    """
    from bertd.bundle import BundleError
    from bertd_server.models.default_model import NoDefaultModelError, ensure_bundle
    from bertd_server.system import cpu

    from bertd_bench.harness import results
    from bertd_bench.harness.rounds import Schedule
    from bertd_bench.regression import baseline, cases, document

    used = threads or cpu.usable_threads()
    try:
        before = None if update else _before(path, used)
        folder = bundle or ensure_bundle()
        schedule = Schedule(rounds, repeats=10, steady_seconds=1, turn_seconds=0.1)
        now = cases.measure(folder, used, schedule)
        if json_path is not None:
            results.write(now, json_path)
        if before is None:
            results.write(now, path)
            click.echo(f"{path} is written. {now.noise.verdict}")
            return
        found = baseline.changes(before, now)
        slower = _slower(found, bound)
        click.echo(document.render(found, bound))
        if slower:
            click.echo("measuring once more")
            found = baseline.changes(before, cases.measure(folder, used, schedule))
            click.echo(document.render(found, bound))
    except (OSError, ValueError, BundleError, NoDefaultModelError) as error:
        raise CannotCompare(str(error)) from error
    click.echo(now.noise.verdict)
    slower &= _slower(found, bound)
    if slower:
        raise click.ClickException(
            f"slower by more than {bound - 1:.0%}, twice: {'; '.join(sorted(slower))}"
        )
    if all(each.faster_than(bound) for each in found):
        click.echo("all cases are faster: write the baseline anew with --update")


def _before(path: Path, threads: int) -> Baseline:
    """The baseline, if it is of such a machine as this one."""
    from bertd_bench.harness import machine, results
    from bertd_bench.regression import baseline

    if not path.exists():
        raise CannotCompare(f"{path} is not there: give --baseline FILE, or write it with --update")
    before = results.read(path, baseline.Baseline, "regress")
    if other := baseline.another_kind(before.machine, machine.describe(threads)):
        raise CannotCompare(
            f"{path} is of another kind of machine ({other}): write one by --update --baseline FILE"
        )
    return before


def _slower(found: list[Change], bound: float) -> set[str]:
    return {each.name for each in found if each.slower_than(bound)}


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("first", metavar="A.json", type=_FILE)
@click.argument("second", metavar="B.json", type=_FILE)
def diff(first: Path, second: Path) -> None:
    """Show two results of one kind side by side, as B over A."""
    from bertd_bench.regression import diff as sides

    try:
        click.echo(sides.table(sides.read(first), sides.read(second)))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("first", metavar="A.json", type=_FILE)
@click.argument("second", metavar="B.json", type=_FILE)
def agree(first: Path, second: Path) -> None:
    """Say whether ratios of two runs of `load` or `compare` agree; exit 1 where one does not."""
    from bertd_bench.regression import agree as runs

    try:
        a, b = runs.read(first), runs.read(second)
        click.echo(runs.render(a, b))
    except (OSError, ValueError) as error:
        raise CannotCompare(str(error)) from error
    if runs.apart(a, b):
        raise SystemExit(1)
