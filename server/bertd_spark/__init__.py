"""bertd on Spark: models as functions of ``DataFrame.mapInArrow``."""
