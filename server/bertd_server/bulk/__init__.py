"""Tables in, tables out: what a model says of each row of an Arrow table, without a server.

::

    rows ──columns──> Input, or what is wrong with it ──tasks──> replies ──> columns, errors

`tables` is the map itself, of which :mod:`bertd_ray` and :mod:`bertd_spark` make functions of
theirs; `files` runs it over Parquet files on one machine, and goes on where it was stopped;
`command` is `bertd embed --input`.
"""
