"""What a bundle is called where nobody says."""

from __future__ import annotations

import re


def safe_name(name: str) -> str:
    """The last part of a folder name or hub id, in letters, digits, ``.``, ``_``, ``-`` only."""
    last = name.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._]+", "-", last).strip("-.") or "model"
