"""`bertd bench hardware`."""

from __future__ import annotations

from pathlib import Path

import click

from bertd_bench import options


@click.command()
@click.argument("bundles", nargs=-1, type=options.BUNDLE)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt", "openvino"]),
    default="cpu",
    show_default=True,
    help="What computes.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    help="Of this machine, in any currency: says what a million texts cost.",
)
@options.rounds(7, 2)
@click.option(
    "--turn-seconds", type=click.FloatRange(min=0, min_open=True), default=0.4, show_default=True
)
@click.option(
    "--memory-mib",
    type=click.IntRange(min=1),
    help="Memory to go through. Default: four times the last level of cache, 64 to 256.",
)
@options.accept_noise
@options.json_path
def hardware(  # noqa: PLR0913, PLR0917 - click's parameters
    bundles: tuple[Path, ...],
    provider: str,
    price_per_hour: float | None,
    rounds: int,
    turn_seconds: float,
    memory_mib: int | None,
    accept_noise: bool,
    json_path: Path | None,
) -> None:
    """Measure this machine for BUNDLES: cores, memory, products, roofline, rates, cost.

    Which of two machines to buy: give both a price, and `bertd bench diff A.json B.json`.

    BUNDLES are of one model in several precisions, or of several models. Without any, the
    embedded default model in fp32 and int8.
    """
    import tempfile
    from typing import cast

    from bertd.bundle import BundleError
    from bertd_export.errors import ExportError
    from bertd_server.engine import providers
    from bertd_server.errors import CannotServeError
    from bertd_server.models.default_model import NoDefaultModelError
    from bertd_server.system.setting_types import Provider

    from bertd_bench.hardware import document, run

    try:
        chosen = cast("Provider", provider)
        providers.chain(chosen)  # before anything is exported
        with tempfile.TemporaryDirectory(prefix="bertd-hardware-") as scratch:
            asked = run.HardwareOptions(
                folders=bundles or _default_model(Path(scratch)),
                provider=chosen,
                price_per_hour=price_per_hour,
                rounds=rounds,
                turn_seconds=turn_seconds,
                memory_bytes=memory_mib and memory_mib << 20,
                tries=options.tries_when_quiet(accept_noise),
                command=options.command_line(bundles),
            )
            found = run.measure(asked, options.progress)
    except (BundleError, CannotServeError, ExportError, NoDefaultModelError) as error:
        raise click.ClickException(str(error)) from error
    options.conclude(found, document.render(found), json_path, found.noise.reasons)


def _default_model(scratch: Path) -> tuple[Path, ...]:
    from bertd_export.bundle import export_model
    from bertd_export.quantization.int8 import Int8Options
    from bertd_server.models.default_model import checkpoint_folder, ensure_bundle

    folders = (ensure_bundle(), scratch / "int8")
    options.progress("exporting the default model in int8")
    source = str(checkpoint_folder())
    export_model(source, folders[1], name="all-MiniLM-L6-v2", int8=Int8Options())
    return folders
