"""`bertd serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from bertd_server.config.flags import SettingsCommand, given
from bertd_server.system.exits import Exit

if TYPE_CHECKING:
    from bertd_server.config.settings import Settings
    from bertd_server.models.exporting import Export

_EXPORTING = ("task", "precision", "revision", "allow_pickle")


@click.command(cls=SettingsCommand, short_help="Serve a model, or a folder of models.")
@click.argument("model", required=False)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="BERTD_CONFIG",
    show_envvar=True,
    help="TOML file of settings, one key for each flag, with _ for -; flags and BERTD_… variables "
    "win over it",
)
@click.option("--print-config", is_flag=True, help="print the effective settings as TOML, and end")
@click.option("--task", help="of a checkpoint: what it is exported for  [default: found from it]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "fp16"]),
    help="of a checkpoint: as which numbers it is exported  [default: fp32]",
)
@click.option("--revision", help="of a hub id: branch, tag or commit  [default: main]")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="of a checkpoint: read pickled weights where there are no safetensors; no code is run",
)
def serve(model: str | None, config: Path | None, *, print_config: bool, **values: Any) -> None:
    """Serve MODEL over gRPC: a bundle, a checkpoint's folder or a hub id.

    A checkpoint is exported on the way, once: its bundle stays in --cache-folder (`bertd export`
    has more options). Without MODEL, the models of --repository; else, the embedded default model.
    """
    from bertd_server.config import configuration

    context = click.get_current_context()
    options = _export_options({name: values.pop(name) for name in _EXPORTING})
    flags = given(context, values)
    try:
        effective = configuration.load(flags, config)
    except configuration.ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    if print_config:
        click.echo(effective.toml(), nl=False)
        return
    settings = effective.settings
    _check_repository(model, options, settings)
    from bertd_server.errors import CannotServeError, MisusedError
    from bertd_server.models.exporting import ExportingError

    try:
        folder, begin = _bundle(model, options, settings)
    except MisusedError as error:
        raise click.UsageError(str(error)) from error
    if settings.supervise and configuration.SUPERVISOR_VARIABLE not in os.environ:
        from bertd_server.process import supervisor

        supervisor.take_over(settings)

    from bertd.bundle import BundleError

    from bertd_server.process import app, runtime
    from bertd_server.serving.server import CannotListenError
    from bertd_server.system import logs

    logs.configure(settings.log_format, settings.log_level)
    try:
        ended = runtime.run(
            app.serve(folder, settings, lambda: configuration.load(flags, config).settings, begin)
        )
    except MisusedError as error:
        raise click.UsageError(str(error)) from error
    except (BundleError, CannotServeError, CannotListenError, ExportingError) as error:
        raise click.ClickException(str(error)) from error
    if ended in {Exit.NEVER_ENDED, Exit.RESTART}:
        # A thread may still be inside ONNX Runtime, which an orderly exit would take down
        # around it.
        os._exit(ended)
    context.exit(ended)


def _export_options(values: dict[str, Any]) -> tuple[str, ...]:
    """Arguments of `bertd export` that were given; what it has as its default is left out.

    Raises:
        click.UsageError: there is no such task.
    """
    from bertd.bundle import Task

    tasks = get_args(Task)
    if values["task"] is not None and values["task"] not in tasks:
        raise click.UsageError(f"--task: {values['task']!r} is none of {', '.join(tasks)}")
    arguments = [
        f"--{name}={values[name]}"
        for name in ("task", "precision", "revision")
        if values[name] not in {None, "fp32"}
    ]
    return (*arguments, *(["--allow-pickle"] if values["allow_pickle"] else []))


def _check_repository(model: str | None, options: tuple[str, ...], settings: Settings) -> None:
    """Refuse what does not go with a repository.

    Raises:
        click.UsageError: that was given.
    """
    if settings.repository is None:
        return
    if model is not None:
        raise click.UsageError(
            f"MODEL and --repository: give one of them, or move the bundle to "
            f"{settings.repository}/NAME/1"
        )
    if settings.name:
        raise click.UsageError(
            "--name and --repository: the models of a repository have their folders' names; give "
            "one of them"
        )
    if options:
        raise click.UsageError(
            f"{options[0]} is for a checkpoint, and a repository holds bundles: "
            f"bertd export CHECKPOINT --output {settings.repository}/NAME/1 {' '.join(options)}"
        )


def _bundle(
    model: str | None, options: tuple[str, ...], settings: Settings
) -> tuple[Path | None, Callable[[], Export | None]]:
    """The folder to serve, None for the repository, and what makes it where it is not there.

    Raises:
        MisusedError: the model cannot be found, or not be exported here.
        click.UsageError: an option does not go with it.
    """
    from bertd_server.models import default_model, exporting

    if settings.repository is not None:
        return None, lambda: None
    cache = settings.cache_folder
    if model is None:
        return (
            default_model.bundle_folder(cache, options),
            lambda: default_model.begin_export(cache, options),
        )
    found = exporting.find(model, options)
    if found is not None:
        folder = found.folder(cache)
        if not exporting.is_whole(folder):
            exporting.check_exporter(model)
        return folder, lambda: exporting.begin(found, cache)
    if options:
        raise click.UsageError(
            f"{options[0]} is for a checkpoint, and {model} is no folder of one: a bundle is "
            "served as it was exported"
        )
    return Path(model), lambda: None
