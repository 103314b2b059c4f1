"""Tasks of a model as classes for ``ray.data``.

::

    Embedder.run(source, target, bundle)      files to files, goes on where it was stopped
      └─ Embedder.map(dataset, bundle)        blocks small enough, a pool that leaves a CPU
           └─ dataset.map_batches(Embedder, …)  one actor: one bundle, a lane for each core
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.fs as pfs
import ray
import ray.data
from bertd_server.bulk.columns import TableError
from bertd_server.bulk.counts import BulkCounts
from bertd_server.bulk.tables import opened
from ray.data import ActorPoolStrategy, Dataset, SaveMode
from ray.data.checkpoint import CheckpointConfig
from ray.util.annotations import RayDeprecationWarning

from bertd_ray.placement import place

_ROWS = 4096  # of a block: what is lost with an actor, and what a checkpoint counts by
_CALLS = 2  # blocks in an actor at once: one is read and written while another is computed
_RESTARTS = 3
_PENDING = ".pending.parquet"  # of a checkpoint whose rows may not be written in full


class TableActor:
    """A task as a class for ``map_batches``: tables in, the same with more columns out."""

    task: ClassVar[str]

    def __init__(self, bundle: str, **keywords: Any) -> None:
        """Open the model.

        Args:
            bundle: its folder, on the node of the actor.
            keywords: of the task and of the model (docs/bulk.md).
        """
        self._open = ExitStack()
        self._map = self._open.enter_context(opened(bundle, self.task, **keywords))

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the columns of the task and of errors."""
        return self._map(table)

    @classmethod
    def map(  # noqa: PLR0913 - by keyword
        cls,
        dataset: Dataset,
        bundle: str,
        *,
        actors: int | None = None,
        lanes: int | None = None,
        rows_per_block: int = _ROWS,
        max_restarts: int = _RESTARTS,
        **keywords: Any,
    ) -> Dataset:
        """A dataset with the columns of the task and of errors.

        Args:
            dataset: with columns of texts.
            bundle: its folder, the same on all nodes.
            actors: how many; None for one on each node.
            lanes: of each; None for the CPUs of a node.
            rows_per_block: at most; what is computed at a time.
            max_restarts: of each actor, and attempts at each block after the first. A row that
                ends its process ends the job then.
            keywords: of the task and of the model (docs/bulk.md).

        Raises:
            TableError: checkpoints are on, and `ids` is not their column.
            ValueError: actors or lanes cannot be.
        """
        config = ray.data.DataContext.get_current().checkpoint_config
        if config is not None and keywords.get("ids") != config.id_column:
            raise TableError(
                f"checkpoints go by the column {config.id_column!r}: give ids={config.id_column!r},"
                " so that rows without an id of their own are refused"
            )
        nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        pool = place(nodes, actors, lanes, checkpoints=config is not None)
        # Blocks are cut before the map: checkpoints that were taken behind it would be lost with
        # the block, and reading makes blocks of whole files.
        # Ray warns of options that it does not name, and names none that bound restarts.
        bounds = {"max_restarts": max_restarts, "max_task_retries": max_restarts}
        blocks = dataset.repartition(target_num_rows_per_block=rows_per_block)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)
            return blocks.map_batches(
                cls,
                fn_constructor_args=(bundle,),
                fn_constructor_kwargs={"lanes": pool.lanes, **keywords},
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    size=pool.actors,
                    max_concurrent_calls_per_actor=_CALLS,
                    enable_true_multi_threading=True,
                ),
                num_cpus=pool.claim,
                udf_modifying_row_count=False,
                **bounds,
            )

    @classmethod
    def run(
        cls,
        source: str | list[str],
        target: str,
        bundle: str,
        *,
        ids: str,
        checkpoints: str | None = None,
        **keywords: Any,
    ) -> BulkCounts:
        """Read Parquet files, and write what becomes of them; again after a stop, for the rest.

        Args:
            source: files, or a folder of them.
            target: folder to write to, which all nodes see.
            bundle: its folder, the same on all nodes.
            ids: the column that tells rows apart: not null, and no value twice.
            checkpoints: folder that keeps the ids of what is written, which all nodes see; None
                for the target's name and `.checkpoints`.
            keywords: as of :meth:`map`.

        Raises:
            TableError: the target has rows, and its checkpoints are gone.
        """
        kept = checkpoints or f"{target.rstrip('/')}.checkpoints"
        if _files(target) and not _files(kept):
            raise TableError(
                f"{target} has files, and {kept} does not say of which rows: name an empty folder, "
                "or the checkpoints of the job that wrote them"
            )
        # What a job was writing as it was killed has its name already. Ray removes it, by the
        # checkpoint that is pending beside it; so files of the target are not counted before.
        before = _rows(kept)
        context = ray.data.DataContext.get_current()
        others = context.checkpoint_config
        # Once deleted, a job that runs again would write all rows again.
        context.checkpoint_config = CheckpointConfig(ids, kept, delete_checkpoint_on_success=False)
        try:
            mapped = cls.map(ray.data.read_parquet(source), bundle, ids=ids, **keywords)
            mapped.write_parquet(target, mode=SaveMode.APPEND)
        finally:
            context.checkpoint_config = others
        error = keywords.get("error", "error")
        read = sum(_rows(one) for one in ([source] if isinstance(source, str) else source))
        return BulkCounts(read, before, _rows(target) - before, _rows(target, error))


def _files(path: str) -> list[str]:
    """The Parquet files of a folder, or the one that is meant; none where there is nothing."""
    filesystem, inner = _found(path)
    kind = filesystem.get_file_info(inner).type
    if kind != pfs.FileType.Directory:
        return [inner] if kind == pfs.FileType.File else []
    listed = filesystem.get_file_info(pfs.FileSelector(inner, recursive=True))
    return [one.path for one in listed if one.path.endswith(".parquet")]


def _rows(path: str, column: str | None = None) -> int:
    """Rows of Parquet files that are whole; where a column is given, those that have it."""
    filesystem, _ = _found(path)
    whole = [one for one in _files(path) if not one.endswith(_PENDING)]
    if not whole:
        return 0
    found = pds.dataset(whole, filesystem=filesystem, format="parquet")
    return int(found.count_rows(filter=None if column is None else pds.field(column).is_valid()))


def _found(path: str) -> tuple[pfs.FileSystem, str]:
    uri = path if "://" in path else Path(path).resolve().as_uri()
    found: tuple[pfs.FileSystem, str] = pfs.FileSystem.from_uri(uri)
    return found


class Embedder(TableActor):
    """`embedding`: a fixed-size list of float32 for each text."""

    task = "embed"


class SparseEmbedder(TableActor):
    """`indices` and `values`: weights of the vocabulary for each text."""

    task = "embed_sparse"


class Classifier(TableActor):
    """`labels`, best first, for each text or pair of texts."""

    task = "classify"


class ZeroShotClassifier(TableActor):
    """`labels` of your own, best first, for each text."""

    task = "classify_zero_shot"


class Ranker(TableActor):
    """`score` of each query and document."""

    task = "rank"


class Tagger(TableActor):
    """`entities` of each text."""

    task = "tag"


class Answerer(TableActor):
    """`answers` to each question from its context."""

    task = "answer"


class MaskFiller(TableActor):
    """`masks` of each text, with candidates."""

    task = "fill_mask"
