"""deploy/Containerfile, as far as it can be checked without an engine for containers.

tests/bench/test_footprint.py installs what the build stage copies, and serves with it.
"""

from __future__ import annotations

import pwd
import re
import tomllib
from pathlib import Path

import bertd
import pytest
from bertd_server.config.settings import Settings
from helpers.deployed import (
    DEPLOY,
    copied,
    documents,
    effective,
    image_command,
    image_environment,
    named_settings,
    port,
    stage,
    stages,
)
from helpers.paths import ROOT

KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "RUN", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip


def test_what_is_copied_exists_and_comes_from_a_stage_before() -> None:
    earlier: set[str] = set()
    for each in stages():
        assert {name for name, _ in each.instructions} <= KNOWN
        for rest in each.of("COPY"):
            if origin := re.match(r"--from=(\S+)", rest):
                assert origin[1] in earlier
        assert each.base in earlier or each.base.startswith("docker.io/library/python:")
        earlier.add(each.name)
    assert "pyproject.toml" in copied()
    assert all((ROOT / source).exists() for source in copied())


def test_what_serves_has_no_torch_and_no_root() -> None:
    """What is built by default is the stage `server`; only the exporter installs `export`."""
    assert (stages()[-1].base, stages()[-1].instructions) == ("server", ())
    assert stage("bundled").base == "server"
    server = stage("server")
    assert [rest for rest in server.of("COPY") if "exporter" in rest] == []
    assert stage("bundled").of("COPY") == ["--from=exporter /bundle /mnt/models"]
    (user,) = server.of("USER")
    assert all(re.fullmatch(r"[1-9]\d*", number) for number in user.split(":"))
    assert f"--owner={user.split(':')[0]} " in server.of("RUN")[0]
    served = " ".join(rest for one in (stage("build"), server) for _, rest in one.instructions)
    assert "torch" not in served
    assert "export]" not in served


def test_extras_exist_and_the_version_is_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    build = stage("build")
    wanted = [rest.partition("=")[2] for rest in build.of("ARG") if rest.startswith("EXTRAS")]
    wanted += re.findall(r"'\.\[([\w,]+)\]'", " ".join(stage("exporter").of("RUN")))
    assert len(wanted) == 2
    for extras in wanted:
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert f"VERSION={bertd.__version__}" in stage("server").of("ARG")
    (image,) = documents(DEPLOY / "kubernetes/kustomization.yaml")[0]["images"]
    assert image["newTag"] == bertd.__version__


def test_its_command_is_one_that_bertd_takes(tmp_path: Path) -> None:
    """The ports are the defaults; the cache is a volume."""
    entrypoint, command, *arguments = image_command()
    assert (Path(entrypoint).name, command) == ("bertd", "serve")
    settings = effective(arguments, image_environment(), tmp_path)
    ports = [settings[name].rpartition(":")[2] for name in ("address", "http_address")]
    assert ports == [str(port("address")), str(port("http_address"))]
    assert stage("server").of("EXPOSE") == [" ".join(ports)]
    assert stage("server").of("VOLUME") == [f'["{settings["cache_folder"]}"]']
    assert "insecure" not in named_settings(" ".join(image_environment()))


def test_settings_that_are_named_anywhere_exist() -> None:
    """As variables, or as flags of more than one word; comments included."""
    paths = [path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".service", ".env"}]
    assert len(paths) > 10
    for path in paths:
        named = named_settings(path.read_text(encoding="utf-8"))
        assert named <= Settings.model_fields.keys() | {"print_config"}, path


def test_a_user_whom_the_system_does_not_know_has_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number alone, and no HOME: it failed before any setting was read."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert effective(["model"], {}, tmp_path)["cache_folder"] == "/.cache/bertd"
    assert effective(["model"], image_environment(), tmp_path)["cache_folder"] != "/.cache/bertd"
