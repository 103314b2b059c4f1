"""deploy/systemd: directives that systemd knows, exit codes as docs/operations.md has them."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from bertd_server.system.exits import Exit
from helpers.deployed import DEPLOY, effective

UNIT = DEPLOY / "systemd/bertd.service"
VARIABLES = DEPLOY / "systemd/bertd.env"
# Of systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5).
KNOWN = {
    "After", "AmbientCapabilities", "CacheDirectory", "CacheDirectoryMode", "CapabilityBoundingSet",
    "Description", "DynamicUser", "Environment", "EnvironmentFile", "ExecReload", "ExecStart",
    "KillMode", "LimitNOFILE", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges",
    "NotifyAccess", "PrivateDevices", "PrivateTmp", "PrivateUsers", "ProtectClock",
    "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemoveIPC",
    "Restart", "RestartForceExitStatus", "RestartPreventExitStatus", "RestartSec",
    "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "StartLimitBurst", "StartLimitIntervalSec", "SuccessExitStatus", "SystemCallArchitectures",
    "SystemCallErrorNumber", "SystemCallFilter", "TimeoutStartSec", "TimeoutStopSec", "Type",
    "UMask", "WantedBy", "Wants", "WatchdogSec",
}  # fmt: skip


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """The values of each directive of [Service]."""
    return _parsed()["Service"]


def _parsed() -> dict[str, dict[str, list[str]]]:
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            sections[section][name].append(value)
    return sections


def test_directives_are_known_ones() -> None:
    """Where there is no systemd to ask, too."""
    sections = _parsed()
    assert sections.keys() == {"Unit", "Service", "Install"}
    assert {name for section in sections.values() for name in section} <= KNOWN


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    """Its programs aside, which are not installed here; a misspelt directive would be named."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/bertd/bin/bertd", "/bin/true")
    for content, complaint in ((text, ""), (f"{text}Wanted=x\n", "Wanted")):
        unit = tmp_path / "bertd.service"
        unit.write_text(content, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if "bertd.service" in line]
        assert bool(said) == bool(complaint), said
        assert complaint in "".join(said)


def test_exit_codes_are_answered_as_documented(service: dict[str, list[str]]) -> None:
    """Restarted: a failed start, a request to restart. Not: misuse, a stop that lost calls."""

    def codes(name: str) -> set[int]:
        return {int(code) for code in service[name][0].split()}

    assert service["Restart"] == ["on-failure"]
    assert codes("RestartForceExitStatus") == {Exit.RESTART}
    assert codes("RestartPreventExitStatus") == {Exit.MISUSED}
    seconds = {128 + number for number in (signal.SIGINT, signal.SIGTERM)}
    ended = codes("SuccessExitStatus")
    assert ended == {Exit.CANCELLED, Exit.NEVER_ENDED} | seconds
    assert set(Exit) - ended - {Exit.FINISHED, Exit.MISUSED, Exit.RESTART} == {Exit.CANNOT_START}


def test_the_server_takes_its_flags_and_variables(
    service: dict[str, list[str]], tmp_path: Path
) -> None:
    """And has time to start and stop, room for its connections, and a cache that it may write."""
    program, command, *arguments = shlex.split(service["ExecStart"][0])
    assert (Path(program).name, command) == ("bertd", "serve")
    cache = f"/var/cache/{service['CacheDirectory'][0]}"
    pairs = [value.replace("%C", "/var/cache") for value in service["Environment"]]
    lines = VARIABLES.read_text(encoding="utf-8").splitlines()
    pairs += [line for line in lines if line and not line.startswith("#")]
    settings = effective(arguments, dict(pair.split("=", 1) for pair in pairs), tmp_path)
    assert settings["cache_folder"] == cache
    assert service["EnvironmentFile"][0].endswith(f"/{VARIABLES.name}")
    drain = settings["drain_delay_seconds"] + settings["drain_seconds"]
    assert int(service["TimeoutStopSec"][0]) >= drain + 5
    assert int(service["LimitNOFILE"][0]) > 2 * settings["max_connections"]
    assert service["Type"] == ["notify"]
    assert int(service["WatchdogSec"][0]) > 0
