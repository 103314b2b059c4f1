"""A server that answers over HTTP, with a model for each task, and what asks it."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2_grpc
from helpers.described import Described
from helpers.patience import PATIENCE
from helpers.running import RunningServer, quick_settings
from helpers.v2_served import TASKS, bundle_of

EMBED: Task = "feature-extraction"
MOST = 8  # texts of a call


def repository(factory: pytest.TempPathFactory) -> Path:
    """A folder with a model for each task, called as the task."""
    root = factory.mktemp("repository")
    for task in TASKS:
        shutil.copytree(bundle_of(task, factory), root / task / "1")
    return root


@dataclass
class Answer:
    """What came back: the status, headers in lower case, the bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class HttpServed:
    """The server; texts of a call, where nothing else is said, are at most 8."""

    def __init__(self, root: Path, **changes: Any) -> None:
        settings = quick_settings(
            **{
                "repository": root,
                "http_api": "127.0.0.1:0",
                "max_texts_per_call": MOST,
                "default_model": EMBED,
                **changes,
            }
        )
        self.running = RunningServer(None, settings)
        self.server = self.running.server
        assert self.server.http is not None
        self.http = self.server.http
        self.port = self.http.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(self.running.address)
        self.described: Described | None = None
        """What answers are held against, if they are."""
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.channel.close()
        self.running.stop()

    def ask(
        self,
        path: str,
        given: Any = None,
        *,
        method: str = "",
        model: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask for a path; a body that is no bytes is sent as JSON."""
        named = {"bertd-model": model} if model else {}
        answer = ask(self.port, path, given, method=method, headers={**named, **(headers or {})})
        verb = method or ("GET" if given is None else "POST")
        if self.described is not None:
            kind = answer.headers["content-type"]
            self.described.check(verb, path, answer.status, kind, answer.body)
        return answer

    def get(self, path: str, given: Any = None, **options: Any) -> Any:
        """The JSON of an answer that is one."""
        answer = self.ask(path, given, **options)
        assert answer.status == 200, answer.body
        return answer.json


def ask(
    port: int,
    path: str,
    given: Any = None,
    *,
    method: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Ask a server for a path; a body that is no bytes is sent as JSON."""
    body = given if given is None or isinstance(given, bytes) else json.dumps(given).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        verb = method or ("GET" if given is None else "POST")
        connection.request(verb, path, body, headers or {})
        response = connection.getresponse()
        known = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, known, response.read())
    finally:
        connection.close()


def until(happened: Callable[[], bool]) -> bool:
    """Wait for what must happen."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if happened():
            return True
        time.sleep(0.01)
    return False
