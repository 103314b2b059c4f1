"""`bertd serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bertd_server.config.flags import SettingsCommand, given
from bertd_server.system.exits import Exit


@click.command(cls=SettingsCommand)
@click.argument(
    "bundle", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="BERTD_CONFIG",
    show_envvar=True,
    help="TOML file of settings, one key for each flag, with _ for -; flags and BERTD_… variables "
    "win over it",
)
@click.option("--print-config", is_flag=True, help="print the effective settings as TOML, and end")
def serve(bundle: Path | None, config: Path | None, *, print_config: bool, **values: Any) -> None:
    """Serve BUNDLE over gRPC, or the models of --repository; else, the embedded default model."""
    from bertd_server.config import configuration

    context = click.get_current_context()
    flags = given(context, values)
    try:
        effective = configuration.load(flags, config)
    except configuration.ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    if print_config:
        click.echo(effective.toml(), nl=False)
        return
    settings = effective.settings
    if bundle is not None and settings.repository is not None:
        raise click.UsageError(
            f"BUNDLE and --repository: give one of them, or move the bundle to "
            f"{settings.repository}/NAME/1"
        )
    if settings.name and settings.repository is not None:
        raise click.UsageError(
            "--name and --repository: the models of a repository have their folders' names; give "
            "one of them"
        )
    if settings.supervise and configuration.SUPERVISOR_VARIABLE not in os.environ:
        from bertd_server.process import supervisor

        supervisor.take_over(settings)

    from bertd.bundle import BundleError

    from bertd_server.errors import CannotServeError, MisusedError
    from bertd_server.models import default_model
    from bertd_server.process import app, runtime
    from bertd_server.serving.server import CannotListenError
    from bertd_server.system import logs

    logs.configure(settings.log_format, settings.log_level)
    chosen = bundle is not None or settings.repository is not None
    try:
        ended = runtime.run(
            app.serve(
                bundle if chosen else default_model.bundle_folder(settings.cache_folder),
                settings,
                lambda: configuration.load(flags, config).settings,
                lambda: None if chosen else default_model.begin_export(settings.cache_folder),
            )
        )
    except MisusedError as error:
        raise click.UsageError(str(error)) from error
    except (
        BundleError,
        CannotServeError,
        CannotListenError,
        default_model.NoDefaultModelError,
    ) as error:
        raise click.ClickException(str(error)) from error
    if ended in {Exit.NEVER_ENDED, Exit.RESTART}:
        # A thread may still be inside ONNX Runtime, which an orderly exit would take down
        # around it.
        os._exit(ended)
    context.exit(ended)
