"""`bertd bench` serve-load, front-end, soak, malformed, and the tables of docs."""

from __future__ import annotations

from pathlib import Path

import click

_BUNDLE = click.argument(
    "bundle", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
_SETTING = click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting of `bertd serve`, such as lanes=2. Default: the server's own.",
)


@click.command("serve-load")
@_BUNDLE
@_SETTING
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=4.0,
    show_default=True,
    help="Length of one turn; take more for a slow model.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--target",
    type=float,
    default=0.85,
    show_default=True,
    help="Least share of the bare engine's throughput.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the results.",
)
def serve_load(  # noqa: PLR0913, PLR0917 - click's parameters
    bundle: Path | None,
    settings: tuple[str, ...],
    threads: int | None,
    seconds: float,
    rounds: int,
    target: float,
    json_path: Path | None,
) -> None:
    """Load a server of BUNDLE over gRPC; print targets and figures as Markdown tables.

    Without BUNDLE, the embedded default model.
    """
    from bertd.bundle import BundleError
    from bertd_server.models import default_model

    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.load import measure, serve_results

    try:
        report = measure.measure(
            bundle or default_model.ensure_bundle(),
            threads=threads,
            seconds=seconds,
            rounds=rounds,
            target=target,
            settings=parse(settings),
            progress=lambda line: click.echo(f"measuring {line}", err=True),
        )
    except (BenchError, BundleError, default_model.NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(serve_results.to_markdown(report))
    if json_path is not None:
        json_path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


@click.command()
@_BUNDLE
@_SETTING
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--minutes", type=click.FloatRange(min=0.01), default=10.0, show_default=True)
def soak(
    bundle: Path | None, settings: tuple[str, ...], threads: int | None, minutes: float
) -> None:
    """Put random traffic on a server of BUNDLE; fail if memory grows or an answer is wrong.

    Without BUNDLE, the embedded default model.
    """
    from bertd.bundle import BundleError
    from bertd_server.models import default_model

    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.load import soak as traffic

    try:
        seen = traffic.soak(
            bundle or default_model.ensure_bundle(),
            seconds=60 * minutes,
            threads=threads,
            settings=parse(settings),
            progress=lambda line: click.echo(line, err=True),
        )
    except (BenchError, BundleError, default_model.NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    for kind, count in sorted(seen.calls.items()):
        click.echo(f"{count:8,}  {kind}")
    click.echo(f"{seen.texts:8,}  texts answered")
    click.echo(f"memory {seen.memory[-1] / 2**20:.0f} MiB, growth once warm {seen.growth:+.1%}")
    for line in seen.wrong[:20]:
        click.echo(f"wrong: {line}")
    if not seen.passed:
        raise click.ClickException("the soak has failed")


@click.command("front-end")
@_BUNDLE
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.05),
    default=1.5,
    show_default=True,
    help="Length of one turn.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the results.",
)
def front_end(bundle: Path | None, seconds: float, rounds: int, json_path: Path | None) -> None:
    """Measure the server's CPU time for a call without the model's, beside a bare gRPC echo.

    Without BUNDLE, the embedded default model.
    """
    from bertd.bundle import BundleError
    from bertd_server.models import default_model

    from bertd_bench.load import front_end as measurement
    from bertd_bench.load import front_results
    from bertd_bench.load.front_servers import FrontError

    try:
        report = measurement.measure(
            bundle or default_model.ensure_bundle(),
            seconds=seconds,
            rounds=rounds,
            progress=lambda line: click.echo(f"measuring {line}", err=True),
        )
    except (FrontError, BundleError, default_model.NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(front_results.to_markdown(report))
    if json_path is not None:
        json_path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


@click.command()
@_BUNDLE
@_SETTING
@click.option("--threads", type=click.IntRange(min=1), help="Default: all usable cores.")
@click.option("--requests", type=click.IntRange(min=10), default=100_000, show_default=True)
@click.option(
    "--seed", default=0, show_default=True, help="The same one gives the same requests again."
)
def malformed(
    bundle: Path | None, settings: tuple[str, ...], threads: int | None, requests: int, seed: int
) -> None:
    """Send malformed requests to every RPC; fail if a status is wrong or memory grows.

    Without BUNDLE, the embedded default model.
    """
    from bertd.bundle import BundleError
    from bertd_server.models import default_model

    from bertd_bench.contestants.eager import BenchError
    from bertd_bench.load import siege

    try:
        seen = siege.besiege(
            bundle or default_model.ensure_bundle(),
            requests=requests,
            seed=seed,
            threads=threads,
            settings=parse(settings),
            progress=lambda line: click.echo(line, err=True),
        )
    except (BenchError, BundleError, default_model.NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    for (kind, status), count in sorted(seen.calls.items()):
        click.echo(f"{count:8,}  {kind}: {status}")
    click.echo("in all: " + ", ".join(f"{count:,} {s}" for s, count in siege.by_status(seen.calls)))
    click.echo(f"{seen.good:8,}  good requests in between")
    click.echo(
        f"memory {seen.memory[-1] / 2**20:.0f} MiB, growth once warm {seen.growth:+.1%}, "
        f"of its peak {seen.growth_of_peak:+.1%}"
    )
    for line in seen.wrong[:20]:
        click.echo(f"wrong: {line}")
    if not seen.passed:
        raise click.ClickException(f"{len(seen.wrong)} were wrong, or memory grew")


def parse(settings: tuple[str, ...]) -> dict[str, str]:
    """Settings of `bertd serve` by their names."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set {setting} is not NAME=VALUE, such as lanes=2")
        parsed[name.replace("-", "_")] = value
    return parsed


@click.command("load-docs")
@click.option(
    "--results",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of the JSON files of `bertd bench serve-load` and `front-end`.",
)
@click.option(
    "--document",
    "path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("docs/lab/load.md"),
    show_default=True,
    help="The file to rewrite.",
)
def load_docs(results: Path, path: Path) -> None:
    """Write the results of `bertd bench serve-load` and `front-end` into their document."""
    from bertd_bench.docs import documents
    from bertd_bench.load import document

    documents.rewrite(path, lambda text: document.rewrite(text, results))


COMMANDS = (serve_load, front_end, soak, malformed, load_docs)
