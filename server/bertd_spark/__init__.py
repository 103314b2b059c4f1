"""bertd on Spark: models as functions of ``DataFrame.mapInArrow``.

::

    run(spark, source, target, step, …)   files to files in slices, goes on where it was stopped
      └─ mapped(frame, step, …)           one mapInArrow for all steps
           └─ worker: a model for each step, opened once for all tasks of a Python worker

docs/bulk.md shows how to use it.
"""

from bertd_spark.frames import mapped, run
from bertd_spark.steps import TableStep, step

__all__ = ["TableStep", "mapped", "run", "step"]
