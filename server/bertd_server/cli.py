"""`bertd serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bertd_server.flags import SettingsCommand


@click.command(cls=SettingsCommand)
@click.argument(
    "bundle", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def serve(bundle: Path | None, **flags: Any) -> None:
    """Serve BUNDLE over gRPC; without BUNDLE, the embedded default model."""
    from bertd.bundle import BundleError
    from pydantic import ValidationError

    from bertd_server import app, default_model, logs, process
    from bertd_server.errors import CannotServeError
    from bertd_server.settings import Settings

    logs.configure()
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        problems = "; ".join(
            f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise click.UsageError(problems) from error
    try:
        folder = bundle or default_model.ensure_bundle(settings.cache_folder)
        finished = process.run(app.serve(folder, settings))
    except (
        BundleError,
        CannotServeError,
        app.CannotListenError,
        default_model.NoDefaultModelError,
    ) as error:
        raise click.ClickException(str(error)) from error
    if not finished:
        # A thread is still inside ONNX Runtime, which an orderly exit would take down around it.
        os._exit(1)
