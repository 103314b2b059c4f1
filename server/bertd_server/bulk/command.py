"""`bertd embed --input`: Parquet files through a model of this process, without a server.

The client's command finds this by its entry point, in the group `bertd.files`. What is wrong ends
as one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
from bertd.bundle import BundleError, manifest_bytes

from bertd_server.bulk.columns import TableError
from bertd_server.bulk.files import FileJob, JobStep, found_files
from bertd_server.bulk.tables import opened
from bertd_server.errors import CannotServeError, RequestError
from bertd_server.inside import SettingsError
from bertd_server.models.default_model import ensure_bundle
from bertd_server.models.exporting import ExportingError

_ERROR = "error"


def map_files(  # noqa: PLR0913 - by keyword
    task: str,
    inputs: Sequence[Path],
    folder: Path,
    *,
    bundle: Path | None,
    lanes: int | None,
    columns: Sequence[str] | None,
    rows_per_file: int,
    options: Mapping[str, Any],
) -> Iterator[JobStep]:
    """Make the parts of a job that are missing, and tell how far it is.

    Args:
        task: of :data:`bertd_server.bulk.tasks.TASKS`.
        inputs: Parquet files, or folders of them.
        folder: to write to.
        bundle: its folder; None for the default model.
        lanes: how many; None for one on each core.
        columns: that are kept beside what is computed; None for all.
        rows_per_file: of output, at most.
        options: of the task.

    Raises:
        click.ClickException: something is not in order; the message says what.
    """
    # As `bertd serve` has it: threads of the tokenizer would take cores from lanes.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with _explained():
        model = bundle or ensure_bundle()
        job = FileJob(
            found_files(inputs),
            folder,
            identity={
                "task": task,
                "bundle": sha256(manifest_bytes(model)).hexdigest(),
                "options": {name: _plain(value) for name, value in options.items()},
            },
            rows_per_file=rows_per_file,
            columns=columns and [*columns, *_texts(options)],
        )
        settings = {} if lanes is None else {"lanes": lanes}
        with opened(model, task, error=_ERROR, **settings, **options) as mapper:
            yield from job.run(mapper, _ERROR)


def _texts(options: Mapping[str, Any]) -> list[str]:
    """The column that is read."""
    return [str(options.get("text", "text"))]


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    return value.tolist() if hasattr(value, "tolist") else value


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (TableError, SettingsError, BundleError, CannotServeError, ExportingError) as error:
        raise click.ClickException(str(error)) from error
    except RequestError as error:
        raise click.ClickException(error.message) from error
