"""Every shell and Python block of the README and docs/ does what its document says.

A block that cannot run here says so in its first line (`# not run by the tests: …`), and those of
docs/lab, which measure for minutes, in docs/lab/README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme
from bertd_server.security.keys import KeyEntry, hashed
from helpers.markdown import DOCUMENTS, LAB, blocks
from helpers.once import once
from helpers.paths import ROOT
from helpers.reader import Reader, agrees
from helpers.tiny import save_tiny

pytestmark = pytest.mark.timeout(1800)  # a document's blocks, on a machine that may be busy


@pytest.fixture(scope="session")
def default_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded default model, under its name."""

    def make(folder: Path) -> None:
        place(bundle_folder, folder / "bundle")
        manifest = folder / "bundle" / "bertd.json"
        renamed = json.loads(manifest.read_text()) | {"name": "all-MiniLM-L6-v2"}
        manifest.unlink()
        manifest.write_text(json.dumps(renamed))

    return once(tmp_path_factory, "default", make) / "bundle"


def served(reader: Reader, _: Path) -> None:
    """`make serve` runs in another terminal."""
    reader.shell("bertd serve")


def served_beside_a_checkpoint(reader: Reader, bundle: Path) -> None:
    served(reader, bundle)
    with_checkpoint(reader, bundle)


def with_checkpoint(reader: Reader, _: Path) -> None:
    """A model of the reader's own."""
    save_tiny(reader.folder / "MODEL", "bert", num_hidden_layers=1)


def with_bundle(reader: Reader, bundle: Path) -> None:
    """One that was exported before."""
    place(bundle, reader.folder / "bundles" / "minilm")


def with_texts(reader: Reader, bundle: Path) -> None:
    """A bundle, and a table of texts."""
    with_bundle(reader, bundle)
    texts = pa.table({"id": [1, 2], "text": ["one text", "another"]})
    pq.write_table(texts, reader.folder / "texts.parquet")


def with_repository(reader: Reader, bundle: Path) -> None:
    """A root of models, where the project's root is."""
    place(bundle, reader.folder / "models" / "minilm" / "1")
    (reader.folder / "tests").symlink_to(ROOT / "tests")


def with_certificates(reader: Reader, _: Path) -> None:
    """Those that an authority has given to the reader."""
    authority, folder = trustme.CA(), reader.folder
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for host, name in (("localhost", "tls"), ("me.example", "me")):
        issued = authority.issue_cert(host)
        for number, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(folder / f"{name}.crt", append=number > 0)
        issued.private_key_pem.write_to_path(folder / f"{name}.key")


def place(bundle: Path, folder: Path) -> None:
    shutil.copytree(bundle, folder, copy_function=os.link)


# Documents that one reader reads in turn, and what is there before they begin.
READ: dict[tuple[str, ...], Callable[[Reader, Path], None]] = {
    ("README.md",): served_beside_a_checkpoint,
    ("docs/recipes.md", "docs/recipes.ko.md"): with_repository,
    ("docs/export.md",): with_checkpoint,
    ("docs/api.md", "docs/tei.md", "docs/v2.md", "docs/http.md"): served,
    ("docs/configuration.md",): served,
    ("docs/inside.md",): with_bundle,
    ("docs/bulk.md",): with_texts,
    ("docs/repository.md",): with_repository,
    ("docs/security.md",): with_certificates,
}


# They export a model each; or start processes for what other tests do in one.
SLOW = {
    ("docs/recipes.md", "docs/recipes.ko.md"),
    ("docs/export.md",),
    ("docs/inside.md",),
    ("docs/bulk.md",),
    ("docs/security.md",),
    ("docs/configuration.md",),
    ("docs/repository.md",),
}


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, marks=[pytest.mark.slow] if names in SLOW else []) for names in READ],
    ids=" ".join,
)
def test_documents_can_be_followed(
    names: tuple[str, ...], default_bundle: Path, tmp_path: Path
) -> None:
    with Reader(tmp_path, default_bundle) as reader:
        READ[names](reader, default_bundle)
        for block in chain.from_iterable(blocks(ROOT / name) for name in names):
            if block.is_run or not block.is_program:
                reader.read(block)


def test_no_document_with_a_block_to_run_is_left_out() -> None:
    to_run = {document for document in DOCUMENTS if any(one.is_run for one in blocks(document))}
    assert to_run == {ROOT / name for name in chain.from_iterable(READ)}


def test_the_lab_says_that_its_commands_are_not_run() -> None:
    assert "the tests do not run them" in (LAB / "README.md").read_text(encoding="utf-8")


def test_the_keys_that_a_document_shows_are_read() -> None:
    (shown,) = (one.text for one in blocks(ROOT / "docs/security.md") if one.language == "toml")
    (key,) = tomllib.loads(shown)["keys"]
    KeyEntry.model_validate(key | {"hash": hashed("bertd_search_secret")})


def test_what_a_document_shows_is_compared() -> None:
    assert agrees("[0.50, 0.93, …]}", "[0.5003, 0.9212, 0.1]}")
    assert agrees("NAME   TASK\na  b\n", "NAME TASK\na b")
    assert not agrees("0.50 a", "0.53 a")
    assert not agrees("0.50 a", "0.50 b")
    assert not agrees("one\ntwo", "one")
