"""Where settings come from, what is refused, and the table that documents them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bertd_server.cli import serve
from bertd_server.config import configuration
from bertd_server.config.configuration import Configuration, load
from bertd_server.config.settings import GROUPS, RELOADABLE, Settings
from bertd_server.process import app
from bertd_server.security import transport
from click.testing import CliRunner
from helpers.paths import ROOT
from pydantic import SecretStr
from structlog.testing import capture_logs


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of settings."""
    path = tmp_path / "bertd.toml"
    path.write_text('lanes = 5\nthreads = 6\nmemory_limit = "1GiB"\nmax_queue_seconds = 2\n')
    return path


def test_flags_win_over_variables_over_the_file_over_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting knows its source; an empty variable is none."""
    monkeypatch.setenv("BERTD_LANES", "3")
    monkeypatch.setenv("BERTD_THREADS", "4")
    monkeypatch.setenv("BERTD_MEMORY_LIMIT", "")
    found = load({"threads": "2"}, file)
    settings = found.settings
    assert (settings.threads, settings.lanes, settings.memory_limit) == (2, 3, 2**30)
    assert settings.drain_seconds == Settings.model_fields["drain_seconds"].default
    names = ("threads", "lanes", "memory_limit", "drain_seconds")
    assert [found.sources[name] for name in names] == [
        "--threads",
        "BERTD_LANES",
        str(file),
        configuration.DEFAULT,
    ]


def test_the_printed_configuration_gives_itself_again(file: Path, tmp_path: Path) -> None:
    """As a file, and with the source of each value; nothing is loaded for it."""
    odd = str(tmp_path / 'a "quoted" \\ \x7f path')
    arguments = ["--print-config", "--cache-folder", odd, "--supervise"]
    result = CliRunner().invoke(serve, arguments, env={"BERTD_CONFIG": str(file)})
    assert result.exit_code == 0, result.output
    assert f"lanes = 5  # {file}\n" in result.output
    assert "supervise = true  # --supervise\n" in result.output
    assert "max_passed_over = 16  # default\n" in result.output
    printed = tomllib.loads(result.output)
    assert Settings(**printed) == load({"cache_folder": odd, "supervise": True}, file).settings
    again = tmp_path / "again.toml"
    again.write_text(result.output)
    assert load({}, again).settings == Settings(**printed)


def test_secrets_are_not_printed() -> None:
    """Nor is what is not set written as if it were; TOML has no null."""

    class More(Settings):
        key: SecretStr = SecretStr("hush")
        certificate: Path | None = None

    more = More()
    printed = Configuration(more, dict.fromkeys(More.model_fields, "x")).toml()
    assert "hush" not in printed
    assert "# key is set and not shown  # x\n# certificate is not set  # x\n" in printed
    unset = {name for name in Settings.model_fields if getattr(more, name) is None}
    assert tomllib.loads(printed).keys() == Settings.model_fields.keys() - unset


@pytest.mark.parametrize(
    ("text", "flags", "variables", "words"),
    [
        ("max_text_per_call = 3", [], {}, ["x.toml: max_text_per_call", "mean max_texts_per_call"]),
        ("max-queue-tokens = 3", [], {}, ["max-queue-tokens is no", "mean max_queue_tokens?"]),
        ("[server]\nlanes = 3", [], {}, ["x.toml: server is no setting"]),
        ("lanes = 0", [], {}, ["x.toml: lanes: 0 is out of range: give a whole number of 1"]),
        ("lanes = 1025", [], {}, ["x.toml: lanes: 1025 is out of", "whole number of 1 to 1024"]),
        ("", ["--threads", "99999"], {}, ["--threads: '99999'", "whole number of 1 to 1024"]),
        ("lane_niceness = 99", [], {}, ["lane_niceness: 99", "a whole number of 0 to 19"]),
        ("lanes = two", [], {}, ["x.toml is not TOML", "line 1"]),
        ("", [], {"BERTD_LANS": "3"}, ["BERTD_LANS is no setting: did you mean BERTD_LANES?"]),
        ("", [], {"BERTD_ZZZ": "3"}, ["BERTD_ZZZ is no setting: remove it"]),
        ("", [], {"BERTD_PROVIDER": "gpu"}, ["BERTD_PROVIDER: 'gpu'", "one of cpu, cuda"]),
        ("", ["--lanez", "3"], {}, ["No such option", "--lanes"]),
        ("", ["--config", "nowhere.toml"], {}, ["nowhere.toml cannot be read: No such file"]),
        ("", ["--config", "/"], {}, ["/ cannot be read: it is no regular file"]),
        ("lanes = " + "[" * 10_000, [], {}, ["x.toml is not TOML"]),
        ("lanes = " + "9" * 5_000, [], {}, ["x.toml is not TOML: Exceeds the limit"]),
        ("", ["--lanes", "x" * 500], {}, ["--lanes: 'xxx", "x… is not what it takes"]),
        ("", ["--drain-seconds", "inf"], {}, ["--drain-seconds: 'inf'", "a number of 0 or more"]),
        ("", ["--drain-seconds", "nan"], {}, ["'nan' is no finite number: give a number of 0"]),
        ("", ["--handshake-seconds", "0"], {}, ["'0' is out of range: give a number above 0"]),
        ("", ["--poll-seconds", "inf"], {}, ["'inf' is no finite number: give a number above 0"]),
        ("", ["--api-keys", ""], {}, ["--api-keys: '' names nothing: give a path, or leave"]),
        ("tls_key = ' '", [], {}, ["x.toml: tls_key: ' ' names nothing"]),
        ("", ["--memory-limit", "1KiB"], {}, ["give at least 64MiB, or 0 for no limit"]),
        ("", ["--memory-limit", "9" * 400], {}, ["--memory-limit: '999", "no amount of memory"]),
    ],
)
def test_what_is_wrong_is_named_with_its_source_and_a_remedy(
    tmp_path: Path, text: str, flags: list[str], variables: dict[str, str], words: list[str]
) -> None:
    """Exit code 2, before anything is loaded."""
    path = tmp_path / "x.toml"
    path.write_text(text)
    own = {"BERTD_CONFIG": str(path), "BERTD_LANE_NICENESS": None}  # the tests' own would go first
    result = CliRunner().invoke(serve, flags, env={**own, **variables})
    assert result.exit_code == 2
    for word in words:
        assert word in result.output


def test_limits_of_connections_are_what_grpc_can_hold() -> None:
    huge = Settings(keepalive_seconds=1e308, max_connections=10**30, max_concurrent_streams=0)
    largest = 2**31 - 1
    given = dict(transport.options(huge))
    for name in ("keepalive_time_ms", "max_allowed_incoming_connections", "max_concurrent_streams"):
        assert given[f"grpc.{name}"] == largest


def test_a_cache_folder_that_keeps_nothing_is_a_warning(tmp_path: Path) -> None:
    """Once, with what is lost and what to do; one that is not there yet is made."""
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        app.warn_unkept(tmp_path / "file" / "nope")
        app.warn_unkept(tmp_path / "new")
    (warned,) = logs
    assert warned["cache_folder"] == str(tmp_path / "file" / "nope")
    assert (warned["reason"], "measurements" in warned["lost"]) == ("Not a directory", True)
    assert list((tmp_path / "new").iterdir()) == []


def test_more_threads_than_cores_are_a_warning_and_no_error() -> None:
    """Each setting by its name; an accelerator's lanes are no threads of a core each."""
    with capture_logs() as logs:
        app.warn_beyond(2, Settings(lanes=3, threads=2))
        app.warn_beyond(2, Settings(lanes=3, threads=3, provider="cuda"))
    (warning,) = logs
    assert warning["setting"] == "lanes"
    assert (warning["given"], warning["usable"]) == (3, 2)
    assert warning["remedy"].startswith("--lanes 2")


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's, and what Kubernetes sets for services called bertd and bertd-metrics."""
    for name in (
        "BERTD_SERVER",
        "BERTD_SERVICE_HOST",
        "BERTD_SERVICE_PORT_GRPC",
        "BERTD_PORT",
        "BERTD_PORT_8001_TCP_ADDR",
        "BERTD_METRICS_PORT_9090_TCP",
        "BERTD_METRICS_SERVICE_PORT",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8001")
    assert configuration.DEFAULT in load({}).sources.values()


def test_the_document_has_every_setting_as_the_model_says(tmp_path: Path) -> None:
    """`python server/settings_table.py` would change nothing; groups and marks name settings."""
    document = ROOT / "docs" / "configuration.md"
    text = document.read_text(encoding="utf-8")
    copy = tmp_path / "copy.md"
    before, _, rest = text.partition("\n### ")
    copy.write_text(before + rest[rest.index("\n<!-- /generated") :], encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "server" / "settings_table.py"), copy], check=True)
    assert copy.read_text(encoding="utf-8") == text
    assert {*GROUPS, *RELOADABLE} <= set(Settings.model_fields)
    assert next(iter(Settings.model_fields)) in GROUPS
