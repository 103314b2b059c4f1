"""The map from a table to the same table with what a model says of each row.

::

    table ──rows_of──> inputs ──calls──> a few at once ──> replies ──> table, columns, error
                  └──> errors ───────────────────────────────────────────────────────^

A row's answer depends on that row alone, bit for bit, and so does its error: tables may be cut
anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from bertd_server.bulk.columns import Row, TableError, calls, check_ids, check_names, rows_of
from bertd_server.bulk.tasks import TASKS
from bertd_server.errors import EngineFailure, InvalidInput, Overloaded, RequestError
from bertd_server.inside import SyncModel, open_model_sync
from bertd_server.models.model import Model
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import Input

_CALLS_AT_ONCE = 4  # lanes find work while a call's inputs are read and its answers written
_PAUSE = 0.05  # seconds, the least before a refused call is made again
_UNLIMITED = 1 << 40
_UNHURRIED = {"max_queue_seconds": 1e9, "max_queue_tokens": _UNLIMITED}
"""Nobody waits in front of a table: its length is no reason to refuse a part of it."""


class TableMapper:
    """A task of a model as a function of tables. Any number of threads may call it."""

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        model: SyncModel,
        task: str,
        *,
        error: str = "error",
        ids: str | None = None,
        fixed: bool = True,
        **options: Any,
    ) -> None:
        """Check the options, and that the model is for the task.

        Args:
            model: that answers.
            task: of :data:`bertd_server.bulk.tasks.TASKS`.
            error: the column of errors, strings; null where a row has its answer.
            ids: the column that tells rows apart; then null and repeated ids are refused.
            fixed: whether vectors are lists of a fixed size.
            options: names of columns, such as `text="body"`, and those of the task.

        Raises:
            TableError: there is no such task, column of a task or option.
            RequestError: the model is for another task, or an option cannot be.
        """
        if task not in TASKS:
            raise TableError(f"there is no task {task!r}: use one of {', '.join(TASKS)}")
        self._task = TASKS[task]
        self._model = model
        self._error = error
        self._ids = ids
        self._reads = {
            role: str(options.pop(role, role))
            for number, role in enumerate(self._task.reads)
            if role in options or not (number and self._task.alone)
        }
        unknown = set(options) - set(self._task.options)
        if unknown:
            known = ", ".join([*self._task.reads, *self._task.options])
            raise TableError(f"{task} has no option {min(unknown)!r}: use {known}")
        self._options = options
        model.wait(lambda asked: self._task.ask(asked, [], options))
        self._fields = [
            *self._task.fields(model.manifest, options, fixed),
            pa.field(error, pa.string()),
        ]

    def schema(self, given: pa.Schema) -> pa.Schema:
        """The columns that a table of these columns gets.

        Raises:
            TableError: it cannot be read.
        """
        check_names(given, self._reads, [field.name for field in self._fields])
        return pa.schema([*given, *self._fields])

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of the task and of errors behind its own.

        Raises:
            TableError: a column is missing or of another type.
            RequestError: the model answers no more, whatever the row.
        """
        schema = self.schema(table.schema)
        if self._ids is not None:
            check_ids(table, self._ids)
        rows = rows_of(table, self._reads)
        outcomes = self._outcomes(rows)
        values = [None if isinstance(one, RequestError) else one for one in outcomes]
        errors = [_worded(one) if isinstance(one, RequestError) else None for one in outcomes]
        arrays = [*self._task.arrays(values, self._fields[:-1]), pa.array(errors, pa.string())]
        return pa.table([*table.columns, *arrays], schema=schema)

    def _outcomes(self, rows: Sequence[Row]) -> list[Any]:
        """The value of each row, or its error."""
        inputs = [row for row in rows if isinstance(row, Input)]
        replies = iter(self._model.wait(lambda model: self._answered(model, inputs)))
        return [next(replies).outcome if isinstance(row, Input) else row for row in rows]

    async def _answered(self, model: Model, inputs: Sequence[Input]) -> list[Reply[Any]]:
        """Replies to any number of inputs, in order."""
        slots = asyncio.Semaphore(_CALLS_AT_ONCE)

        async def called(part: Sequence[Input]) -> list[Reply[Any]]:
            async with slots:
                return await self._call(model, part)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(called(inputs[part])) for part in calls(inputs)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the others were cancelled for it
        return [reply for task in tasks for reply in task.result()]

    async def _call(self, model: Model, inputs: Sequence[Input]) -> list[Reply[Any]]:
        """Replies to a few inputs; what is too much together is asked apart."""
        while True:
            try:
                replies = await self._task.ask(model, inputs, self._options)
            except Overloaded as error:
                if error.in_vain:
                    raise
                await asyncio.sleep(max(_PAUSE, error.retry_after_seconds))
            except InvalidInput as error:
                if len(inputs) == 1:
                    return [Reply(error, error.tokens)]
                return [reply for one in inputs for reply in await self._call(model, [one])]
            else:
                return [
                    await self._settled(model, one, reply, alone=len(inputs) == 1)
                    for one, reply in zip(inputs, replies, strict=True)
                ]

    async def _settled(
        self, model: Model, one: Input, reply: Reply[Any], *, alone: bool
    ) -> Reply[Any]:
        """A reply that is the input's own: a value, or an error for which no other is to blame.

        Raises:
            RequestError: no input would have had an answer.
        """
        match reply.outcome:
            case InvalidInput(reason="too_many") if not alone:
                return (await self._call(model, [one]))[0]
            case RequestError() as error if not isinstance(error, InvalidInput | EngineFailure):
                raise error
        return reply


@contextmanager
def opened(bundle: str | Path, **settings: Any) -> Iterator[SyncModel]:
    """A model for tables: as :func:`bertd_server.open_model_sync`, but its queue has no limit.

    Args:
        bundle: its folder.
        settings: those of docs/inside.md.

    Raises:
        SettingsError: there is no such setting, or it cannot have the value.
        bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
        CannotServeError: the provider or the memory is not there.
    """
    with open_model_sync(bundle, **{**_UNHURRIED, **settings}) as model:  # type: ignore[typeddict-item]
        yield model


def _worded(error: RequestError) -> str:
    return f"{error.reason}: {error.message}"
