"""The models of a Python worker, opened once however many tasks it runs.

Spark keeps a worker for the next task, and imports of its functions with it: what this module has
stays. What a function brings along, or the main program defines, is made anew for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
from bertd_server.bulk.tables import opened

_OPEN: dict[str, Callable[[pa.Table], pa.Table]] = {}
_UNTIL_THE_END = ExitStack()  # a worker ends without a word; models need none


def mapper(bundle: str, task: str, keywords: Mapping[str, Any]) -> Callable[[pa.Table], pa.Table]:
    """A task of a model over tables, with vectors as Spark takes them.

    Raises:
        TableError, RequestError, SettingsError, BundleError, CannotServeError: as
            :func:`bertd_server.bulk.tables.opened`.
    """
    key = repr((bundle, task, sorted(keywords.items(), key=lambda item: item[0])))
    if key not in _OPEN:
        _OPEN[key] = _UNTIL_THE_END.enter_context(opened(bundle, task, fixed=False, **keywords))
    return _OPEN[key]
