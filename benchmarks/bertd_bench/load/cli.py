"""`bertd bench load` and `front-end`."""

from __future__ import annotations

from pathlib import Path

import click

from bertd_bench import options


@click.command()
@options.model
@click.option("--contestant", "names", multiple=True, metavar="NAME", help="Default: all.")
@options.threads
@click.option(
    "--objective-ms",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="99 % of all requests must be answered within it.",
)
@options.seconds(4.0, 0.1, "Length of a step; up to three times that where few requests come.")
@options.rounds(3)
@click.option("--steps", type=click.IntRange(min=1), default=16, show_default=True, help="At most.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of `bertd serve`, for all that are behind its front end.",
)
@options.json_path
def load(  # noqa: PLR0913, PLR0917 - click's parameters
    model: str | None,
    names: tuple[str, ...],
    threads: int | None,
    objective_ms: float,
    seconds: float,
    rounds: int,
    steps: int,
    settings: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Find the highest rate that bertd, and what it is compared with, answers in time.

    Requests come at random moments, however slow answers are, and latency counts from the moment
    at which each was due. The rate rises until goodput falls.
    """
    from bertd_export.errors import ExportError

    from bertd_bench.compare.process import PeerError
    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.load import document, run
    from bertd_bench.load.contestants import CONTESTANTS

    known = {each.name: each for each in CONTESTANTS}
    for name in names:
        if name not in known:
            raise click.UsageError(f"--contestant {name} is not one of: {'; '.join(known)}")
    chosen = run.RampOptions(
        model=model,
        contestants=[each for each in CONTESTANTS if not names or each.name in names],
        threads=threads,
        objective=objective_ms / 1e3,
        seconds=seconds,
        rounds=rounds,
        steps=steps,
        settings=_parsed(settings),
        command=options.command_line(),
    )
    try:
        report = run.measure(chosen, options.progress)
    except (BenchError, ExportError, PeerError) as error:
        raise click.ClickException(str(error)) from error
    options.conclude(report, document.goodput(report), json_path)


@click.command("front-end")
@options.bundle
@options.seconds(1.5, 0.05, "Length of one turn.")
@options.rounds(5)
@options.json_path
def front_end(bundle: Path | None, seconds: float, rounds: int, json_path: Path | None) -> None:
    """Measure the server's CPU time for a call without the model's, beside a bare gRPC echo.

    Without BUNDLE, the embedded default model.
    """
    from bertd.bundle import BundleError
    from bertd_server.models import default_model
    from grpc import RpcError

    from bertd_bench.compare.process import PeerError
    from bertd_bench.load import document
    from bertd_bench.load import front_end as measurement

    try:
        report = measurement.measure(
            bundle or default_model.ensure_bundle(),
            seconds=seconds,
            rounds=rounds,
            progress=options.progress,
        )
    except (BundleError, PeerError, RpcError, default_model.NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    options.conclude(report, document.front_end(report), json_path)


def _parsed(settings: tuple[str, ...]) -> dict[str, str]:
    """Settings of `bertd serve` by their names."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set {setting} is not NAME=VALUE, such as lanes=2")
        parsed[name.replace("-", "_")] = value
    return parsed
