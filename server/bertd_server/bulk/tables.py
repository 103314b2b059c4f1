"""The map from a table to the same table with what a model says of each row.

::

    table ──rows_of──> inputs ──calls──> a few at once ──> replies ──> table, columns, error
                  └──> errors ───────────────────────────────────────────────────────^

A row's answer depends on that row alone, bit for bit, and so does its error: tables may be cut
anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from bertd.bundle import Manifest

from bertd_server.bulk.columns import Row, TableError, calls, check_ids, check_names, rows_of
from bertd_server.bulk.tasks import TASKS, TableTask
from bertd_server.errors import EngineFailure, InvalidInput, Overloaded, RequestError
from bertd_server.inside import SyncModel, open_model_sync
from bertd_server.inside.options import OpenOptions
from bertd_server.models.model import Model
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import Input

_CALLS_AT_ONCE = 4  # lanes find work while a call's inputs are read and its answers written
_PAUSE = 0.05  # seconds, the least before a refused call is made again
_FOR_EVER, _ALL = 1e9, 1 << 40  # seconds and tokens of a queue that refuses nothing


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What is asked of each row of a table, checked against what is said of a model.

    Attributes:
        task: what the model is asked.
        reads: columns of texts, by what the task calls them.
        options: of the task.
        ids: the column that tells rows apart; then null and repeated ids are refused.
        fields: of the columns that it gives; the last is that of errors.
    """

    task: TableTask
    reads: Mapping[str, str]
    options: Mapping[str, Any]
    ids: str | None
    fields: Sequence[pa.Field]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        task: str,
        *,
        error: str = "error",
        ids: str | None = None,
        fixed: bool = True,
        **options: Any,
    ) -> Self:
        """Check the options of a task.

        Args:
            manifest: of the model.
            task: of :data:`bertd_server.bulk.tasks.TASKS`.
            error: the column of errors, strings; null where a row has its answer.
            ids: the column that tells rows apart; None if nobody asks.
            fixed: whether vectors are lists of a fixed size.
            options: names of columns, such as `text="body"`, and those of the task.

        Raises:
            TableError: there is no such task, column of a task or option.
            InvalidInput: an option cannot be.
        """
        if task not in TASKS:
            raise TableError(f"there is no task {task!r}: use one of {', '.join(TASKS)}")
        asked = TASKS[task]
        reads = {
            role: str(options.pop(role, role))
            for number, role in enumerate(asked.reads)
            if role in options or not (number and asked.alone)
        }
        unknown = set(options) - set(asked.options)
        if unknown:
            known = ", ".join([*asked.reads, *asked.options])
            raise TableError(f"{task} has no option {min(unknown)!r}: use {known}")
        fields = [*asked.fields(manifest, options, fixed), pa.field(error, pa.string())]
        return cls(asked, reads, options, ids, fields)

    def schema(self, given: pa.Schema) -> pa.Schema:
        """The columns that a table of these columns gets.

        Raises:
            TableError: it cannot be read.
        """
        check_names(given, self.reads, [field.name for field in self.fields])
        return pa.schema([*given, *self.fields])


class TableMapper:
    """A task of a model as a function of tables. Any number of threads may call it."""

    def __init__(self, model: SyncModel, plan: TablePlan) -> None:
        """Check that the model answers what is planned.

        Raises:
            RequestError: it is for another task, or an option cannot be.
        """
        self._model = model
        self._plan = plan
        model.wait(lambda asked: plan.task.ask(asked, [], plan.options))

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of the task and of errors behind its own.

        Raises:
            TableError: a column is missing or of another type.
            RequestError: the model answers no more, whatever the row.
        """
        plan = self._plan
        schema = plan.schema(table.schema)
        if plan.ids is not None:
            check_ids(table, plan.ids)
        rows = rows_of(table, plan.reads)
        outcomes = self._outcomes(rows)
        values = [None if isinstance(one, RequestError) else one for one in outcomes]
        errors = [_worded(one) if isinstance(one, RequestError) else None for one in outcomes]
        arrays = [*plan.task.arrays(values, plan.fields[:-1]), pa.array(errors, pa.string())]
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
                replies = await self._plan.task.ask(model, inputs, self._plan.options)
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
def opened(bundle: str | Path, task: str, **keywords: Any) -> Iterator[TableMapper]:
    """Open a model for a task over tables; use it with `with`.

    Args:
        bundle: its folder.
        task: as of :meth:`TablePlan.of`.
        keywords: its own, and settings of :func:`bertd_server.open_model_sync`.

    Raises:
        TableError: there is no such task, option or setting.
        RequestError: the model is for another task, or an option cannot be.
        SettingsError: a setting cannot have its value.
        bertd.bundle.BundleError: the folder is not a bundle, or not an intact one.
        CannotServeError: the provider or the memory is not there.
    """
    settings, options = split(keywords)
    with open_model_sync(bundle, **settings) as model:
        yield TableMapper(model, TablePlan.of(model.manifest, task, **options))


def split(keywords: Mapping[str, Any]) -> tuple[OpenOptions, dict[str, Any]]:
    """Settings of a model, and what is left for its task.

    Tables may be of any length, and nobody waits in front of them: a part is never refused for what
    waits before it, unless the settings say so.
    """
    names = OpenOptions.__optional_keys__
    given = {name: value for name, value in keywords.items() if name in names}
    settings: Any = {"max_queue_seconds": _FOR_EVER, "max_queue_tokens": _ALL, **given}
    rest = {name: value for name, value in keywords.items() if name not in names}
    return settings, rest


def _worded(error: RequestError) -> str:
    return f"{error.reason}: {error.message}"
