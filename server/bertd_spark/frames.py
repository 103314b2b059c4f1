"""Frames with the columns of tasks, and jobs from files to files.

A job of Spark leaves either all of its files or none. So what is long is cut into slices by the
hash of the rows' ids, each a job of its own with a folder of its own: one that is whole stays.
"""

from __future__ import annotations

import pyarrow as pa
from bertd_server.bulk.columns import TableError
from bertd_server.bulk.counts import BulkCounts
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from bertd_spark.steps import BatchFunction, TableStep

_CHECKED = "spark.sql.execution.arrow.pyspark.validateSchema.enabled"
_SLICES = 16
_DONE = "_SUCCESS"  # what Spark leaves in a folder that it has written in full


def mapped(frame: DataFrame, *steps: TableStep) -> DataFrame:
    """A frame with the columns of all steps.

    Two calls would have two Python workers, each with its model; the steps of one share a worker.
    Sort, or use twice, what was written: a frame is computed again by each of its uses.

    Args:
        frame: with columns of texts.
        steps: what is asked, in turn; each needs an `error` column of its own.

    Raises:
        TableError: a column is missing or of another type, or there is one of a name to be added.
        bertd.bundle.BundleError: a folder is not a bundle.
    """
    # Spark puts output columns in their places by position: two of one type that were swapped
    # would pass, unless it compares their names.
    frame.sparkSession.conf.set(_CHECKED, "true")
    given = to_arrow_schema(frame.schema)
    found = given
    for one in steps:
        found = one.schema(found)
    added = from_arrow_schema(pa.schema(list(found)[len(given) :]))
    schema = StructType([*frame.schema.fields, *added.fields])
    return frame.mapInArrow(BatchFunction(steps, found.names), schema)


def run(
    spark: SparkSession,
    source: str,
    target: str,
    *steps: TableStep,
    ids: str,
    slices: int = _SLICES,
) -> BulkCounts:
    """Read Parquet files, and write what becomes of them; again after a stop, for the rest.

    Args:
        spark: not of Spark Connect.
        source: files, or a folder of them; each slice reads them.
        target: folder to write to; it gets a folder `slice=N` for each.
        steps: as of :func:`mapped`.
        ids: the column that tells rows apart, not null.
        slices: into how many jobs the rows are cut; the same when it runs again.

    Raises:
        TableError: the column of ids is missing or has nulls, or the target was cut otherwise.
    """
    frame = spark.read.parquet(source)
    if ids not in frame.columns:
        raise TableError(f"{source} has no column {ids!r}: name the one of ids with ids=")
    nulls = frame.filter(sql.col(ids).isNull()).count()
    if nulls:
        raise TableError(f"{ids!r} is null in {nulls} rows: give each row an id")
    there = _slices(spark, target)
    if there and max(there) >= slices:
        raise TableError(f"{target} has a slice {max(there)}: give slices= as for its first run")
    number = sql.pmod(sql.xxhash64(sql.col(ids)), sql.lit(slices))
    for slice_ in range(slices):
        if slice_ not in there:
            part = mapped(frame.filter(number == slice_), *steps)
            part.write.mode("overwrite").parquet(f"{target.rstrip('/')}/slice={slice_}")
    old = sql.col("slice").isin(sorted(there))
    errors = [str(one.keywords.get("error", "error")) for one in steps]
    failed = sql.greatest(sql.lit(0), *(sql.col(name).isNotNull().cast("int") for name in errors))
    total, skipped, wrong = (
        spark.read.parquet(target)
        .agg(sql.count("*"), sql.sum(old.cast("int")), sql.sum(failed))
        .collect()[0]
    )
    return BulkCounts(frame.count(), skipped or 0, total - (skipped or 0), wrong or 0)


def _slices(spark: SparkSession, target: str) -> set[int]:
    """The slices that were written in full."""
    jvm = spark.sparkContext._jvm  # noqa: SLF001 - there is no other way to Hadoop's file systems
    path = jvm.org.apache.hadoop.fs.Path(f"{target.rstrip('/')}/slice=*/{_DONE}")
    files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).globStatus(path)  # noqa: SLF001
    return {int(one.getPath().getParent().getName().partition("=")[2]) for one in files or []}
