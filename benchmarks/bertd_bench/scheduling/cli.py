"""`bertd bench simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from bertd_bench import options


@click.command()
@click.option("--requests", type=click.IntRange(min=100), default=2_000, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@options.json_path
def simulate(requests: int, seeds: int, json_path: Path | None) -> None:
    """Compare schedulers in virtual time: goodput and latencies under seeded traffic."""
    from bertd_bench.scheduling import document
    from bertd_bench.scheduling import simulate as simulation

    result = simulation.compare(
        requests=requests,
        seeds=range(1, seeds + 1),
        progress=options.progress,
    )
    options.conclude(result, document.render(result), json_path)
