"""`bertd serve` many times a second: forked from a process that has imported what it needs.

Run as a program: a line of JSON (arguments, log, environment) on its input forks a server, whose
pid it prints; an empty line asks for its exit code, once it has ended. It starts no thread and no
event loop, so that what it forks is as good as new.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import bertd_client.cli
from bertd import command
from bertd_server.models import default_model
from bertd_server.observability import pages
from bertd_server.process import app

CODE = Path(__file__)
_IMPORTED = (app, pages)  # which a server would import once it is forked


def main(checkpoint: str) -> None:
    """Fork a server for each line; each takes `checkpoint` for that of the default model."""
    signal.pthread_sigmask(signal.SIG_BLOCK, command.STOPS)  # until the command takes them
    default_model.checkpoint_folder = lambda: Path(checkpoint)
    for line in sys.stdin:
        arguments, log, environment = json.loads(line)
        pid = os.fork()
        if pid:
            _say(pid)
            sys.stdin.readline()  # until then the pid is this server's, even if it has ended
            _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            continue
        os.setpgid(0, 0)
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for mine, theirs in ((nothing, 0), (sink, 1), (sink, 2)):
            os.dup2(mine, theirs)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        sys.argv = ["bertd", *arguments]
        command.begin(arguments[:1])
        bertd_client.cli.main()


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
