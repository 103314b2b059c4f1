"""Many texts through Ray Data, Spark and files: are all there, once, with the bits of one process?

    python tests/tools/bulk_drill.py BUNDLE [--rows 200000] [--engines files ray spark]

For each engine: a run to the end, whose rate is set beside that of one process on the same cores; a
run of which a worker is killed, then the job, and which is run again. Ray and Spark come with the
extras `ray` and `spark`; Spark needs Java 17. Prints a line for each, and fails if a row is
missing, there twice or other than in one process.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "in", "rain", "sea", "old")
FILES = 8
ENGINES = ("files", "ray", "spark")
_WORKERS = {"ray": "MapWorker", "spark": "pyspark.daemon"}
_PATIENCE = 3600  # seconds


def make(folder: Path, rows: int) -> None:
    """Texts of 3 to 16 words; one in a thousand is null, so that there are errors too."""
    folder.mkdir()
    chance = random.Random(0)
    texts = [
        None if number % 1000 == 999 else " ".join(chance.choices(WORDS, k=chance.randint(3, 16)))
        for number in range(rows)
    ]
    table = pa.table({"id": pa.array(range(rows), pa.int64()), "text": texts})
    each = -(-rows // FILES)
    for number in range(FILES):
        pq.write_table(table.slice(number * each, each), folder / f"{number}.parquet")


def job(engine: str, bundle: Path, source: Path, target: Path, lanes: int) -> None:
    """Run a job to its end, in this process."""
    counts = {"files": by_files, "ray": by_ray, "spark": by_spark}[engine](
        bundle, source, target, lanes
    )
    print(counts, flush=True)


def by_files(bundle: Path, source: Path, target: Path, lanes: int) -> Any:
    from bertd_server.bulk.command import map_files

    for step in map_files(
        "embed",
        [source],
        target,
        bundle=bundle,
        lanes=lanes,
        columns=None,
        rows_per_file=4096,
        options={"text": "text"},
    ):
        last = step
    return last


def by_ray(bundle: Path, source: Path, target: Path, lanes: int) -> Any:
    import bertd_ray
    import ray

    for left in reversed(range(5)):  # Ray gives its own processes 30 s to start, however busy it is
        try:
            ray.init(num_cpus=lanes, include_dashboard=False, log_to_driver=False)
            break
        except Exception:
            if not left:
                raise
    ray.data.DataContext.get_current().enable_progress_bars = False
    return bertd_ray.Embedder.run(str(source), str(target), str(bundle), ids="id", lanes=lanes)


def by_spark(bundle: Path, source: Path, target: Path, lanes: int) -> Any:
    import bertd_spark

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers would be those of the system
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master(f"local[{lanes},4]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    step = bertd_spark.step("embed", str(bundle), lanes=1)
    return bertd_spark.run(spark, str(source), str(target), step, ids="id", slices=8)


def started(engine: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A job in a process of its own."""
    command = [sys.executable, __file__, "--job", engine, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def until(true: Callable[[], Any], what: str, running: subprocess.Popen[bytes]) -> Any:
    """What becomes true while a job runs."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and running.poll() is None:
        if found := true():
            return found
        time.sleep(0.2)
    raise SystemExit(f"the job has ended, or an hour has passed, and there is no {what}")


def family(running: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """A job's process and all that it has begun."""
    parent = psutil.Process(running.pid)
    yield from [parent, *parent.children(recursive=True)]


def worker_of(engine: str, running: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The last process that computes for a job: of Spark, a child of its daemon."""
    found = []
    for one in family(running):
        try:
            if _WORKERS[engine] in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found[-1] if found else None


def interrupted(engine: str, folder: Path, arguments: tuple[object, ...], rows: int) -> None:
    """Kill a worker once there are answers, then the whole job; run it again."""
    running = started(engine, *arguments)
    written = "part-*.parquet" if engine == "files" else "**/*.parquet"
    enough = max(2, rows // 4096 // 4) if engine != "spark" else 2

    def some() -> bool:
        return len([*folder.glob(written)]) >= enough

    if engine != "files":
        until(lambda: [*folder.glob("**/*.parquet")], "first file", running)
        until(lambda: worker_of(engine, running), "worker", running).kill()
    until(some, "quarter", running)
    for one in list(family(running)):
        one.kill()
    running.wait()
    if started(engine, *arguments).wait():
        raise SystemExit(f"{engine}: the job that was run again has failed")


def answers(folder: Path) -> pa.Table:
    """All rows of a job, in the order of their ids, with vectors as lists."""
    table = pq.read_table(folder, partitioning=None).sort_by("id").combine_chunks()
    vectors = table["embedding"].cast(pa.list_(pa.float32()))
    return table.select(["id", "text", "error"]).append_column("embedding", vectors)


def compare(name: str, folder: Path, whole: pa.Table) -> None:
    """Fail unless a job has each row once, and each bit."""
    found = answers(folder)
    lost = len(whole) - pc.count_distinct(found["id"]).as_py()
    twice = len(found) - pc.count_distinct(found["id"]).as_py()
    same = found.cast(whole.schema).equals(whole)
    print(f"{name}: {lost} lost, {twice} twice, bits {'equal' if same else 'DIFFER'}", flush=True)
    if lost or twice or not same:
        raise SystemExit(f"{name}: not what one process says")


def main() -> None:
    """Run each engine; a job where `--job` says so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, bundle = folder / "source", given.bundle.resolve()
        make(source, given.rows)
        begin = time.monotonic()
        if started("files", bundle, source, folder / "whole", given.lanes).wait():
            raise SystemExit("one process has failed")
        alone = given.rows / (time.monotonic() - begin)
        print(f"one process: {alone:,.0f} texts/s with its start", flush=True)
        whole = answers(folder / "whole")
        for engine in given.engines:
            begin = time.monotonic()
            target = folder / engine
            if started(engine, bundle, source, target, given.lanes).wait():
                raise SystemExit(f"{engine}: the job has failed")
            rate = given.rows / (time.monotonic() - begin)
            print(f"{engine}: {rate:,.0f} texts/s, {rate / alone:.2f} of one process", flush=True)
            compare(engine, target, whole)
            again = folder / f"{engine}-again"
            interrupted(engine, again, (bundle, source, again, given.lanes), given.rows)
            compare(f"{engine}, killed and run again", again, whole)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        engine, bundle, source, target, lanes = sys.argv[2:]
        job(engine, Path(bundle), Path(source), Path(target), int(lanes))
    else:
        main()
