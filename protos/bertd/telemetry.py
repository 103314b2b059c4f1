"""Keeps ONNX Runtime from telling its maker what it runs.

Its official builds send events on sessions and models, and keep an identifier in the user's cache
folder, unless a variable forbids it when the module is first imported:
https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md. Texts go to a server that may
hold private ones, so that is off here unless somebody has set the variable on purpose.
"""

from __future__ import annotations

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"


def refuse() -> None:
    """Turn it off for this process, if ONNX Runtime is not imported yet and nobody has chosen."""
    os.environ.setdefault(VARIABLE, "1")
