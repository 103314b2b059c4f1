"""What the tests of deploy/ share: its files, read, and their commands, given to `bertd serve`."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from bertd_server.cli import serve
from bertd_server.config.settings import Settings
from click.testing import CliRunner
from helpers.paths import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = ("1.29", "1.37")
"""The oldest and the newest version whose schemas the manifests keep to."""

_VARIABLE = re.compile(r"\bBERTD_[A-Z_]+\b")
_FLAG = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)+)\b")


def documents(path: Path) -> list[Any]:
    """All documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def validate(document: dict[str, Any]) -> None:
    """Hold a document to Kubernetes' schemas; unknown fields are errors.

    Raises:
        kubernetes_validate.ValidationError: it breaks one.
    """
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)


def port(name: str) -> int:
    """The default port of a setting that is an address."""
    return int(Settings.model_fields[name].default.rpartition(":")[2])


def effective(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """What `bertd serve` makes of a bundle's path, flags and variables; it refuses unknown ones.

    Args:
        arguments: the bundle's path first.
        environment: of the process.
        folder: stands in the place of the bundle.
    """
    ours = {name: value for name, value in environment.items() if name.startswith("BERTD_")}
    suites = {name: None for name in os.environ if name.startswith("BERTD_")}
    asked = CliRunner(env={**suites, **ours}).invoke(
        serve, [str(folder), *arguments[1:], "--print-config"]
    )
    assert asked.exit_code == 0, asked.output
    return tomllib.loads(asked.stdout)


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    """A container's variables, over those of the image."""
    return {**image_environment(), **{one["name"]: one["value"] for one in container["env"]}}


def named_settings(text: str) -> set[str]:
    """Settings that a text names, as variables or as flags of more than one word."""
    variables = {name.removeprefix("BERTD_").lower() for name in _VARIABLE.findall(text)}
    return variables | {name.replace("-", "_") for name in _FLAG.findall(text)}


def patched(document: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A document after a JSON patch of `add`, `replace` and `test`.

    https://datatracker.ietf.org/doc/html/rfc6902
    """
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for operation in operations:
        *way, last = operation["path"].split("/")[1:]
        place: Any = result
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        key = last if isinstance(place, dict) else len(place) if last == "-" else int(last)
        if operation["op"] == "test":
            assert place[key] == operation["value"], operation["path"]
        elif operation["op"] == "add" and isinstance(place, list):
            place.insert(key, operation["value"])
        else:
            place[key] = operation["value"]
    return result


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the Containerfile, its instructions in order."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def of(self, instruction: str) -> list[str]:
        """The arguments of each instruction of a kind."""
        return [rest for name, rest in self.instructions if name == instruction]


def stages() -> list[Stage]:
    """Those of deploy/Containerfile, the one that is built by default last."""
    found: list[tuple[str, str, list[tuple[str, str]]]] = []
    for instruction, rest in _instructions():
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append((name, base, []))
        elif found:
            found[-1][2].append((instruction, rest))
    return [Stage(name, base, tuple(instructions)) for name, base, instructions in found]


def stage(name: str) -> Stage:
    """A stage by its name."""
    return next(each for each in stages() if each.name == name)


def _instructions() -> Iterator[tuple[str, str]]:
    """Each with its lines joined and comments left out."""
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, rest = line.strip().partition(" ")
            yield instruction.upper(), " ".join(rest.split())


def copied() -> list[str]:
    """What the build stage takes from the source tree."""
    return [source for rest in stage("build").of("COPY") for source in rest.split()[:-1]]


def image_environment() -> dict[str, str]:
    """The image's variables."""
    words = (word for rest in stage("server").of("ENV") for word in shlex.split(rest))
    return dict(word.split("=", 1) for word in words)


def image_command() -> list[str]:
    """ENTRYPOINT and CMD in exec form."""
    server = stage("server")
    return [word for name in ("ENTRYPOINT", "CMD") for word in json.loads(server.of(name)[0])]
