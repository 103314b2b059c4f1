"""Files of API keys, as a server takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bertd_server.security.keys import hashed


def write_keys(file: Path, keys: dict[str, str], **more: dict[str, Any]) -> Path:
    """Write keys that may ask models, readable by their owner alone; returns the file.

    Args:
        file: to write.
        keys: by their ids.
        more: of the entry of an id, instead or besides.
    """
    entries = [
        {"id": id_, "hash": hashed(key), "scopes": ["infer"], **more.get(id_, {})}
        for id_, key in keys.items()
    ]
    file.write_text(json.dumps({"keys": entries}))
    file.chmod(0o600)
    return file
