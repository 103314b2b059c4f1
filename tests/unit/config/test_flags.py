"""The flags of `bertd serve` are the settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from bertd_client.commands.served import models
from bertd_server.cli import serve
from bertd_server.config.configuration import load
from bertd_server.config.flags import FIRST, flag, given
from bertd_server.config.settings import Settings
from click.testing import CliRunner


def test_every_setting_has_a_flag_with_its_default_and_variable() -> None:
    """The help names them all."""
    shown = " ".join(CliRunner().invoke(serve, ["--help"], terminal_width=200).output.split())
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        assert f"--{name.replace('_', '-')} " in shown
        assert field.description
        assert field.description in shown
        if isinstance(default, bool):  # a switch, whose default is shown as a part of its flag
            default = name.replace("_", "-") if default else f"no-{name.replace('_', '-')}"
        said = "" if default is None else f"; default: {default}"
        assert f"[env var: BERTD_{name.upper()}{said}" in shown


def test_a_flag_wins_over_the_variable_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command's own parsing gives what the configuration then takes."""
    monkeypatch.setenv("BERTD_LANES", "3")
    monkeypatch.setenv("BERTD_MAX_BATCH_TOKENS", "99")
    context = serve.make_context("serve", ["--lanes", "2", "--drain-seconds", "0.5"])
    settings = load(given(context, context.params)).settings
    assert (settings.lanes, settings.max_batch_tokens) == (2, 99)
    assert settings.drain_seconds == 0.5
    assert settings.max_texts_per_call == Settings.model_fields["max_texts_per_call"].default


def test_amounts_of_memory_take_units_and_the_cache_any_folder() -> None:
    """All settings in bytes read the same words."""
    flags = ["--memory-limit", "2GiB", "--cache-bytes", "64MiB", "--max-message-bytes", "1 MB"]
    context = serve.make_context("serve", [*flags, "--cache-folder", "/var/cache/bertd"])
    settings = load(given(context, context.params)).settings
    assert (settings.memory_limit, settings.cache_bytes) == (2**31, 2**26)
    assert settings.max_message_bytes == 1_000_000
    assert settings.cache_folder == Path("/var/cache/bertd")


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (
            ["--lanes", "0"],
            {},
            ["--lanes", "'0' is out of range: give a whole number of 1 to 1024"],
        ),
        (["--address", "nonsense"], {}, ["--address: 'nonsense' is no address", "host:port"]),
        (["--address", "127.0.0.1:99999"], {}, ["--address: ", "a port of 0 to 65535"]),
        (["--cache-bytes", "lots"], {}, ["--cache-bytes: 'lots' is no amount", "such as 2GiB"]),
        (["--max-message-bytes", "2GiB"], {}, ["--max-message-bytes: ", "of 1024 to 2147483647"]),
        ([], {"BERTD_THREADS": "many"}, ["BERTD_THREADS: 'many' is not what", "number"]),
    ],
)
def test_a_bad_value_is_named_with_its_flag_and_variable(
    flags: list[str], variables: dict[str, str], words: list[str]
) -> None:
    """Exit code 2, as for every misuse of a command."""
    result = CliRunner().invoke(serve, flags, env=variables)
    assert result.exit_code == 2
    for word in words:
        assert word in result.output


def test_the_help_has_every_flag_once_and_ten_first() -> None:
    shown = CliRunner().invoke(serve, ["--help"], terminal_width=200).output
    first, _, rest = shown.partition("\nMore of a checkpoint")
    flags = re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", shown, re.MULTILINE)
    assert len(re.findall(r"^  --", first, re.MULTILINE)) == len(FIRST) == 10
    settings = {flag(name) for name in Settings.model_fields}
    own = {
        "--help",
        "--config",
        "--print-config",
        "--task",
        "--precision",
        "--revision",
        "--allow-pickle",
    }
    assert sorted(flags) == sorted(settings | own)
    assert "\nSecurity and connections:\n" in rest


def test_the_list_of_commands_needs_no_pydantic() -> None:
    """`bertd --help` loads commands, not what they run."""
    script = (
        "import sys\n"
        "from bertd_client.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Serve a model" in done.stdout
    assert "'bertd_server'" in done.stdout
    assert "'pydantic'" not in done.stdout


def test_the_client_has_a_variable_of_its_own() -> None:
    """BERTD_ADDRESS is where a server listens, BERTD_SERVER where a client connects."""
    (address,) = (p for p in models.params if p.name == "address")
    assert isinstance(address, click.Option)
    assert address.envvar == "BERTD_SERVER"
