"""The commands of a client: one for each task, and ``bertd models``.

::

    entries.py   arguments, lines, JSON lines ──> inputs
    embedding.py, texts.py, pairs.py, tokens.py, served.py      what each command asks and shows
    running.py   inputs ──groups──> the client ──> answers, failures
    outputs.py   answers ──> terminal, JSON lines, .npy, .parquet

Nothing heavy is imported before a command runs.
"""

import click

from bertd_client.commands import embedding, pairs, served, texts, tokens

COMMANDS: list[click.Command] = [
    value
    for module in (embedding, texts, pairs, tokens, served)
    for value in vars(module).values()
    if isinstance(value, click.Command)
]
