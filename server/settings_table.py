"""Writes the table of docs/configuration.md from the settings model.

::

    Settings: fields, bounds, descriptions ──> Markdown ──> between two comments

``python server/settings_table.py [DOCUMENT]`` rewrites the section of docs/configuration.md, or of
DOCUMENT. A test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bertd_server.config.configuration import bounds
from bertd_server.config.flags import flag, variable
from bertd_server.config.settings import GROUPS, RELOADABLE, Settings
from pydantic.fields import FieldInfo

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- generated: `python server/settings_table.py` writes what follows -->"
END = "<!-- /generated -->"
_HEAD = "| flag | variable | key | default | what |\n|---|---|---|---|---|"
# Defaults that differ from machine to machine, by what makes them.
_FACTORIES = {
    "usable_threads": "usable threads",
    "cache_folder": "the user's cache folder",
    "memory_limit": "0.9 of the cgroup's, if it has one",
}


def render() -> str:
    """All settings, group by group."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            lines += [f"\n### {GROUPS[name]}\n", _HEAD]
        lines.append(_row(name, field))
    return "\n".join(lines).strip()


def replaced(document: str) -> str:
    """The document with the section written anew.

    Raises:
        ValueError: a comment is missing.
    """
    before, begun, rest = document.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the document needs one pair of lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{after}"


def _row(name: str, field: FieldInfo) -> str:
    what = f"{field.description}; {bounds(field)}" if _is_bounded(field) else field.description
    what = f"{what} (SIGHUP)" if name in RELOADABLE else what
    cells = [f"`{flag(name)}`", f"`{variable(name)}`", f"`{name}`", _default(field), what or ""]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _is_bounded(field: FieldInfo) -> bool:
    """Whether its bounds tell more than that it is 0, or 1, or more."""
    return bounds(field).startswith("one of") or any(
        hasattr(rule, "le") or getattr(rule, "ge", 0) > 1 for rule in field.metadata
    )


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        name = getattr(field.default_factory, "__name__", "")
        return _FACTORIES.get(name, name.replace("_", " "))
    value = field.default
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Rewrite the section."""
    document = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    document.write_text(replaced(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
