"""A server over HTTP that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.described import Described
from helpers.http_served import HttpServed, repository


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model for each task."""
    return repository(tmp_path_factory)


@pytest.fixture(scope="session")
def served(tasks_folder: Path) -> Iterator[HttpServed]:
    """A server of all of them; a call that names none means that for vectors.

    Each of its answers is what the OpenAPI document says.
    """
    with HttpServed(tasks_folder) as server:
        server.described = Described(server.get("/openapi.json"))
        yield server
