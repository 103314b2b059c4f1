"""Ray and Spark: how a pool is placed, and small jobs where these engines are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bertd_ray.placement import Placement, place
from bertd_server.bulk.columns import TableError
from helpers.paths import ROOT

DRILL = ROOT / "tests/tools/bulk_drill.py"


def test_an_actor_on_each_node_has_its_cpus_and_leaves_one_to_readers() -> None:
    assert place([8, 8, 8]) == Placement(actors=3, lanes=8, claim=7)
    assert place([8, 4, 0, 0.5]) == Placement(actors=2, lanes=4, claim=3)
    assert place([2]) == Placement(actors=1, lanes=2, claim=1)
    assert place([1]) == Placement(actors=1, lanes=1, claim=0)


def test_checkpoints_take_a_cpu_more() -> None:
    """A job that goes on filters its rows in an actor, beside the tasks that read."""
    assert place([8], checkpoints=True).claim == 6
    assert place([2], checkpoints=True).claim == 0


def test_a_pool_is_as_large_as_it_is_asked_to_be() -> None:
    assert place([8], lanes=2) == Placement(actors=1, lanes=2, claim=2)
    assert place([8], actors=3, lanes=2) == Placement(actors=3, lanes=2, claim=2)
    assert place([8], actors=2) == Placement(actors=2, lanes=8, claim=3)
    assert place([8, 2], lanes=4) == Placement(actors=1, lanes=4, claim=4)
    assert place([2], lanes=4) == Placement(actors=1, lanes=4, claim=1)


def test_a_pool_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no node of the cluster has a CPU"):
        place([0, 0.5])
    with pytest.raises(ValueError, match="lanes is 0: give 1 or more"):
        place([2], lanes=0)
    with pytest.raises(ValueError, match="actors is -1"):
        place([2], actors=-1)


def needs(module: str, *programs: str) -> pytest.MarkDecorator:
    lacking = [] if importlib.util.find_spec(module) else [module]
    lacking += [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"{lacking} not installed: `make clusters`")


def tables(folder: Path) -> Path:
    """Three texts, one of them null, in two files."""
    folder.mkdir()
    pq.write_table(pa.table({"id": [1, 2], "text": ["the cat", None]}), folder / "a.parquet")
    pq.write_table(pa.table({"id": [3], "text": ["a dog"]}), folder / "b.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("ray", marks=needs("ray")),
        pytest.param("spark", marks=needs("pyspark", "java")),
    ],
)
def test_a_job_is_stopped_and_goes_on(tiny_bundle: Path, engine: str) -> None:
    """The drill of `make clusters`, with fewer rows."""
    command = [sys.executable, str(DRILL), str(tiny_bundle), "--rows", "20000", "--engines", engine]
    made = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.count("0 lost, 0 twice, bits equal") == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Spark about pandas
@needs("pyspark", "java")
def test_steps_of_a_frame_share_a_map_and_add_their_columns(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bulk = pytest.importorskip("bertd_spark")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        pytest.importorskip("pyspark.sql")
        .SparkSession.builder.master("local[1,2]")
        .config("spark.ui.enabled", "false")
    )
    session = spark.config("spark.driver.host", "127.0.0.1").getOrCreate()
    source = tables(tmp_path / "in")
    quick = {"warmup_seconds": 0, "calibration_seconds": 0.05}
    first = bulk.step("embed", str(tiny_bundle), **quick)
    with pytest.raises(TableError, match="has a column 'embedding'"):
        bulk.mapped(session.read.parquet(str(source)), first, first)
    counts = bulk.run(session, str(source), str(tmp_path / "out"), first, ids="id", slices=2)
    assert (counts.read, counts.skipped, counts.written, counts.errors) == (3, 0, 3, 1)
    again = bulk.run(session, str(source), str(tmp_path / "out"), first, ids="id", slices=2)
    assert (again.read, again.skipped, again.written, again.errors) == (3, 3, 0, 1)
    session.stop()


@pytest.mark.filterwarnings("ignore")  # of Ray's packages
@needs("ray")
def test_a_checkpoint_that_is_pending_counts_no_rows(tmp_path: Path) -> None:
    """A job that was killed in it may have written half of the file."""
    data = pytest.importorskip("bertd_ray.data")
    folder = tables(tmp_path / "kept")
    (folder / "c.pending.parquet").write_bytes(b"half")
    assert data._rows(str(folder)) == 3
    assert data._rows(str(folder), "text") == 2
    assert data._rows(str(tmp_path / "none")) == 0
    assert len(data._files(str(folder))) == 3
