"""How much the robustness tests do: seconds' worth in `make test`, minutes' in `make robustness`.

``ROBUSTNESS_SCALE`` multiplies the numbers of requests and seconds. From 10 on the model is the
real one, and memory must not grow: fewer requests do not warm a server up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.restartable import RestartableServer

SCALE = max(1, int(os.environ.get("ROBUSTNESS_SCALE", "1")))
LARGE = SCALE >= 10
GROWTH_LIMIT = 0.05

patient = pytest.mark.timeout(180 * SCALE)


def served_model(request: pytest.FixtureRequest) -> Path:
    """The bundle that is tested."""
    folder: Path = request.getfixturevalue("bundle_folder" if LARGE else "tiny_bundle")
    return folder


def server_of(folder: Path, scratch: Path) -> RestartableServer:
    """A server of its own process, which is not started yet; quick to start where it is tiny."""
    quick = ["--warmup-seconds", "0", "--calibration-seconds", "0.05"]
    flags = [*([] if LARGE else quick), "--http-address", "off", "--cache-folder", str(scratch)]
    return RestartableServer([str(folder), *flags], scratch / "serve.log")


def check_memory(samples: Sequence[int], of: Callable[[Sequence[int]], float] = max) -> None:
    """The last quarter takes no more than the first one after warm-up.

    Args:
        samples: bytes, at even distances.
        of: a quarter; the median where large messages in flight come and go.
    """
    if not LARGE:
        return
    warm = samples[len(samples) // 4 :]
    quarter = max(1, len(warm) // 4)
    growth = of(warm[-quarter:]) / of(warm[:quarter]) - 1
    assert growth < GROWTH_LIMIT, f"memory grew by {growth:.1%} once the server was warm"
