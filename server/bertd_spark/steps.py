"""A task over the rows of a frame: its columns are known without its model being opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from bertd.bundle import read_manifest
from bertd_server.bulk.tables import TablePlan, split

from bertd_spark.worker import mapper


@dataclass(frozen=True, slots=True)
class TableStep:
    """A task of a model with its options.

    Attributes:
        bundle: its folder, the same on all nodes.
        task: of :data:`bertd_server.bulk.tasks.TASKS`.
        keywords: of the task and of the model (docs/bulk.md).
    """

    bundle: str
    task: str
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def schema(self, given: pa.Schema) -> pa.Schema:
        """The columns of a frame with those that this gives."""
        options = split(self.keywords)[1]
        manifest = read_manifest(Path(self.bundle))
        return TablePlan.of(manifest, self.task, fixed=False, **options).schema(given)


def step(task: str, bundle: str, **keywords: Any) -> TableStep:
    """A task for :func:`bertd_spark.mapped`.

    Args:
        task: "embed", "embed_sparse", "classify", "classify_zero_shot", "rank", "tag", "answer" or
            "fill_mask".
        bundle: its folder, the same on all nodes.
        keywords: of the task and of the model (docs/bulk.md).
    """
    return TableStep(bundle, task, keywords)


@dataclass(frozen=True, slots=True)
class BatchFunction:
    """What a Python worker does with the batches of a partition."""

    steps: Sequence[TableStep]
    names: Sequence[str]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches with the columns of all steps, in the order that Spark was told."""
        mappers = [mapper(one.bundle, one.task, one.keywords) for one in self.steps]
        for batch in batches:
            table = pa.Table.from_batches([batch])
            for apply in mappers:
                table = apply(table)
            yield from table.select(self.names).combine_chunks().to_batches()
