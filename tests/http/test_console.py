"""The page at `/`: who gets it, what it may do, and what its numbers say. No browser is needed."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from bertd_server.security.keys import new_key
from helpers.http_served import EMBED, HttpServed
from helpers.key_files import write_keys

HTML = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
STATE = "/console/state"
PRIVATE = "the cat and 안녕"
FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in resources.files("bertd_server.http.console").joinpath("page").iterdir()
}


def test_who_asks_for_html_gets_the_page_and_all_others_what_they_had(served: HttpServed) -> None:
    page = served.ask("/", headers=HTML)
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "accept"
    for accept in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        refused = served.ask("/", headers=accept)
        assert (refused.status, refused.headers["allow"]) == (405, "POST")
    head = served.ask("/", method="HEAD", headers=HTML)
    assert (head.status, head.body) == (200, b"")
    assert served.ask("/", {"inputs": "the cat"}, headers=HTML).status == 200


def test_a_browser_lets_the_page_run_and_ask_nothing_but_the_server_s_own(
    served: HttpServed,
) -> None:
    page = served.ask("/", headers=HTML)
    policy = dict(
        part.split(" ", 1) for part in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src", "connect-src", "img-src"):
        assert policy[kind] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(
        r"\sstyle=|\son[a-z]+=|<style|<script(?! type=\"module\" src=)", FILES["index.html"]
    )
    asked = {
        name
        for text in FILES.values()
        for name in re.findall(r"""["'](/console/[\w.-]+)["']""", text)
    }
    assert {f"/console/{name}" for name in FILES} - asked == {"/console/index.html"}
    for path in asked - {STATE}:
        assert served.ask(path).status == 200, path
    for name, text in FILES.items():
        elsewhere = re.findall(r"(?:https?:)?//[a-z][\w.]+\.[a-z]+", text)
        assert set(elsewhere) <= {"http://www.w3.org"}, name


def test_parts_have_their_types_and_are_not_sent_twice(served: HttpServed) -> None:
    types = {
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
        "html": "text/html",
    }
    for name in FILES:
        answer = served.ask(f"/console/{name}")
        assert answer.headers["content-type"].startswith(types[name.rpartition(".")[2]])
        tag = answer.headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            same = served.ask(f"/console/{name}", headers={"if-none-match": known})
            assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in same.headers  # it would be that of the body
        assert served.ask(f"/console/{name}", headers={"if-none-match": '"other"'}).status == 200
    for nothing in ("/console/", "/console/nothing.js", "/console/..%2f__init__.py"):
        assert served.ask(nothing).status == 404, nothing


def test_the_state_has_numbers_and_no_texts(served: HttpServed) -> None:
    def seen() -> Any:
        state = served.get(STATE)
        return state, next(one for one in state["models"] if one["name"] == EMBED)

    _, before = seen()
    served.get("/v1/embeddings", {"model": EMBED, "input": [PRIVATE, "a dog saw the rain and sat"]})
    refused = {"model": EMBED, "input": "the sea"}
    late = served.ask("/v1/embeddings", refused, headers={"x-request-timeout-ms": "0"})
    assert late.status == 504
    state, after = seen()
    assert state["grpc"] == {"address": served.running.address, "tls": False}
    assert after["calls"] == before["calls"] + 1
    assert after["texts"] == before["texts"] + 2
    assert after["predicted_wait"] >= 0
    assert after["refused"] == served.server.catalogue.find(EMBED).statistics.refused
    assert sum(count for _, count in after["latency"]) == after["calls"]
    assert len(served.get("/openapi.json")["paths"]) > 0
    # Batches that ran since the first look: lengths of texts, seconds, predicted seconds.
    new = [one for one in after["batches"] if one not in before["batches"]]
    lengths = [length for _, found, *_ in new for length in found]
    counts = served.get(
        "/v1/tasks/count-tokens",
        {"model": EMBED, "inputs": [{"text": PRIVATE}, {"text": "a dog saw the rain and sat"}]},
    )
    assert sorted(lengths) == sorted(counts["counts"])
    for number, _, seconds, predicted, kind in new:
        assert number > 0
        assert seconds > 0
        assert predicted > 0
        assert kind in {"lane", "wide", "short"}
    told = json.dumps(state, ensure_ascii=False)
    assert not any(word in told for word in ("안녕", "dog", "rain"))


def test_with_keys_the_page_is_public_and_says_nothing(tasks_folder: Path, tmp_path: Path) -> None:
    key = new_key("one")
    file = write_keys(tmp_path / "keys.json", {"one": key})
    options: dict[str, Any] = {"model_control": "explicit", "load_models": EMBED}
    with HttpServed(tasks_folder, api_keys=file, **options) as guarded:
        shown = [
            guarded.ask("/", headers=HTML),
            *(guarded.ask(f"/console/{name}") for name in FILES),
        ]
        for answer in shown:
            assert answer.status == 200
            assert guarded.running.address.encode() not in answer.body
        assert {answer.body.decode() for answer in shown} == set(FILES.values())  # of no server
        for path in (STATE, "/console/nothing.js"):
            refused = guarded.ask(path)
            assert (refused.status, b"models" in refused.body) in {(401, False), (404, False)}
        assert guarded.ask(STATE).status == 401
        assert guarded.ask("/v1/tasks/list-models", {}).status == 401
        given = {"authorization": f"Bearer {key}"}
        assert guarded.get(STATE, headers=given)["models"][0]["name"] == EMBED


def test_off_there_is_none_of_it_and_no_batch_is_kept(tasks_folder: Path) -> None:
    options: dict[str, Any] = {"model_control": "explicit", "load_models": EMBED}
    with HttpServed(tasks_folder, console="off", **options) as plain:
        refused = plain.ask("/", headers=HTML)
        assert (refused.status, refused.headers["allow"]) == (405, "POST")
        for path in (STATE, "/console/main.js"):
            assert plain.ask(path).status == 404
        plain.get("/v1/embeddings", {"input": "the cat"})
        assert plain.server.model.statistics.recent is None
