"""A Python session in a process of its own: blocks in, what they print out.

Each line of standard input is a block, as JSON; each is answered with a line: what it printed, and
the traceback if it failed. Names live on from block to block, and ``await`` and ``async with`` may
stand at the top, as in ``python -m asyncio``.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import sys
import traceback
from typing import Any


def main() -> None:
    """Answer blocks until there are no more."""
    answers, names = sys.stdout, {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            printed, failure = io.StringIO(), ""
            with contextlib.redirect_stdout(printed):
                try:
                    _run(json.loads(line), names, runner)
                except Exception:  # noqa: BLE001 - whatever it is, the test shows it
                    failure = traceback.format_exc()
            print(json.dumps([printed.getvalue(), failure]), file=answers, flush=True)


def _run(block: str, names: dict[str, Any], runner: asyncio.Runner) -> None:
    code = compile(block, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, names)  # noqa: S307 - our own documents
    if inspect.iscoroutine(outcome):
        runner.run(outcome)


if __name__ == "__main__":
    main()
