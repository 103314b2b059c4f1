"""The commands of a client: one for each task, and ``bertd models``.

::

    entries.py   arguments, lines, JSON lines ──> inputs
    texts.py, pairs.py, tokens.py, served.py      what each command asks
    running.py   inputs ──groups──> the client ──> records, failures
    shows.py     records ──> lines for people
    outputs.py   records ──> terminal, JSON lines, .npy, .parquet

Nothing heavy is imported before a command runs.
"""

from bertd_client.commands.pairs import answer, rerank
from bertd_client.commands.served import models
from bertd_client.commands.texts import classify, embed, fill, tag, zero_shot
from bertd_client.commands.tokens import count, tokenize

__all__ = [
    "answer",
    "classify",
    "count",
    "embed",
    "fill",
    "models",
    "rerank",
    "tag",
    "tokenize",
    "zero_shot",
]
