"""Measurements of bertd, of what it is compared with, and of the machine at hand.

::

    cli ──names──> a room's command ──harness: rounds, noise, intervals──> result (JSON)
                                                                              │
    README.md, docs/ <──docs── the room's document.SECTIONS <─────────────────┤
    one page of charts <──report──────────────────────────────────────────────┘

A new benchmark is a command in its room's `cli`, with options of :mod:`bertd_bench.options` where
others have them; a line of the table in :mod:`bertd_bench.cli`; a result that names its
`benchmark` and is written by :mod:`bertd_bench.harness.results`; and a section of a document in
its room's `document.SECTIONS`.
"""

from bertd import telemetry

telemetry.refuse()  # before any module here imports ONNX Runtime
