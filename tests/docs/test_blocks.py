"""Every shell and Python block of the README and docs/ does what its document says.

A block that cannot run here says so in its first line (`# not run by the tests: …`), and those of
docs/lab, which measure for minutes, in docs/lab/README.md.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from helpers.markdown import DOCUMENTS, LAB, blocks
from helpers.once import once
from helpers.paths import ROOT
from helpers.reader import Reader, agrees
from helpers.tiny import save_tiny

pytestmark = pytest.mark.timeout(900)  # a document's blocks, one after the other


@pytest.fixture(scope="session")
def default_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded default model, under its name."""

    def make(folder: Path) -> None:
        shutil.copytree(bundle_folder, folder / "bundle", copy_function=os.link)
        manifest = folder / "bundle" / "manifest.json"
        renamed = json.loads(manifest.read_text()) | {"name": "all-MiniLM-L6-v2"}
        manifest.unlink()
        manifest.write_text(json.dumps(renamed))

    return once(tmp_path_factory, "default", make) / "bundle"


@pytest.fixture
def reader(tmp_path: Path, default_bundle: Path) -> Iterator[Reader]:
    with Reader(tmp_path, default_bundle) as reader:
        yield reader


def test_readme(reader: Reader) -> None:
    start_server(reader)
    checkpoint(reader.folder / "MODEL")
    read(reader, "README.md")


def test_recipes(reader: Reader, default_bundle: Path) -> None:
    """The Korean recipes use the models that the English ones make."""
    (reader.folder / "tests").symlink_to(ROOT / "tests")
    place(default_bundle, reader.folder / "models" / "minilm" / "1")
    read(reader, "docs/recipes.md")
    read(reader, "docs/recipes.ko.md")


def test_security(reader: Reader) -> None:
    certificates(reader.folder)
    read(reader, "docs/security.md")


def test_repository(reader: Reader, default_bundle: Path) -> None:
    place(default_bundle, reader.folder / "models" / "minilm" / "1")
    read(reader, "docs/repository.md")


def test_inside(reader: Reader, default_bundle: Path) -> None:
    place(default_bundle, reader.folder / "bundles" / "minilm")
    read(reader, "docs/inside.md")


def test_export(reader: Reader) -> None:
    checkpoint(reader.folder / "MODEL")
    read(reader, "docs/export.md")


@pytest.mark.parametrize(
    "name", ["docs/api.md", "docs/v2.md", "docs/tei.md", "docs/configuration.md"]
)
def test_a_document_for_clients_of_the_default_model(reader: Reader, name: str) -> None:
    start_server(reader)
    read(reader, name)


READ: set[Path] = {
    ROOT / name
    for name in (
        *("README.md", "docs/recipes.md", "docs/recipes.ko.md", "docs/security.md"),
        *("docs/repository.md", "docs/inside.md", "docs/export.md"),
        *("docs/api.md", "docs/v2.md", "docs/tei.md", "docs/configuration.md"),
    )
}


def test_no_document_with_a_block_to_run_is_left_out() -> None:
    runnable = {document for document in DOCUMENTS if any(one.is_run for one in blocks(document))}
    assert runnable == READ


def test_the_lab_says_that_its_commands_are_not_run() -> None:
    assert "the tests do not run them" in (LAB / "README.md").read_text(encoding="utf-8")


def test_what_a_document_shows_is_compared() -> None:
    assert agrees("[0.50, 0.93, …]}", "[0.5003, 0.9212, 0.1]}")
    assert agrees("NAME   TASK\na  b\n", "NAME TASK\na b")
    assert not agrees("0.50 a", "0.53 a")
    assert not agrees("0.50 a", "0.50 b")
    assert not agrees("one\ntwo", "one")


def read(reader: Reader, name: str) -> None:
    """What a document says, from its first block to its last."""
    for block in blocks(ROOT / name):
        if block.is_run or not block.is_program:
            reader.read(block)


def start_server(reader: Reader) -> None:
    """What `make serve` has started, as the documents have it."""
    reader.shell("bertd serve")


def checkpoint(folder: Path) -> None:
    """A model of the reader's own."""
    save_tiny(folder, "bert", num_hidden_layers=1)


def place(bundle: Path, folder: Path) -> None:
    """A bundle that the reader has exported before."""
    shutil.copytree(bundle, folder, copy_function=os.link)


def certificates(folder: Path) -> None:
    """Those that an authority has given to the reader."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, files in (
        ("localhost", ("tls.crt", "tls.key")),
        ("me.example", ("me.crt", "me.key")),
    ):
        issued = authority.issue_cert(name, "127.0.0.1")
        certificate, key = (folder / file for file in files)
        for number, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(certificate, append=number > 0)
        issued.private_key_pem.write_to_path(key)
