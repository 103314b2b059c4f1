"""The page at `/` in a real browser: every task, the live part, keyboard, axe, both languages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bertd_server.security.keys import new_key
from helpers.chromium import Browser, axe_source, chromium
from helpers.http_served import EMBED, HttpServed
from helpers.key_files import write_keys
from helpers.v2_served import TASKS

pytestmark = pytest.mark.slow
# What is tried of each task, and what its answer is made of.
TRIES: dict[str, dict[str, str]] = {
    "feature-extraction": {"embed": "td[style]", "tokenize": ".chips li"},
    "text-classification": {"classify": ".bars li", "tokenize": ".chips li"},
    "text-ranking": {"rerank": ".order li", "tokenize": ".chips li"},
    "token-classification": {"tag-tokens": ".marked", "tokenize": ".chips li"},
    "question-answering": {"answer": "mark", "tokenize": ".chips li"},
    "fill-mask": {
        "fill-mask": ".bars li",
        "embed-sparse": ".bars li",
        "tokenize": ".chips li",
    },
    "zero-shot-classification": {"zero-shot-classify": ".bars li", "tokenize": ".chips li"},
}
# A tiny model knows these words, and one text of each answer can be read.
FIELDS = {
    "texts": "the cat sat on a mat\na dog saw the rain",
    "labels": "rain\nthe sea",
    "query": "the cat",
    "documents": "a cat sat on a mat\nrain and the sea",
    "question": "the cat",
    "context": "a cat sat on a mat and saw the rain",
    "terms": "5",
}
MASKED = "the [MASK] sat on a mat\na [MASK] saw the rain"


@pytest.fixture(scope="module")
def served(tasks_folder: Path) -> Iterator[HttpServed]:
    """A server whose calls take as many texts as the page may send."""
    with HttpServed(tasks_folder, max_texts_per_call=256) as server:
        yield server


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that prefers English."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(window: Browser, served: HttpServed) -> Iterator[Browser]:
    """The page, whose models are there; it must have said nothing, and asked the server alone."""
    window.size(1440, 1000)
    window.colours("light")
    window.said()  # of other tests
    window.asked()
    window.open(served.url)
    window.run("localStorage.clear()")
    window.open(served.url)
    window.until(lambda: window.count("#models button") == len(TASKS))
    yield window
    assert window.said() == []
    assert [url for url in window.asked() if not url.startswith(f"{served.url}/")] == []


def model_of(page: Browser, name: str) -> None:
    names = page.run(
        "return [...document.querySelectorAll('#models b')].map(e => e.innerText.trim())"
    )
    page.click("#models button", names.index(name))


def fill(page: Browser, texts: dict[str, str]) -> None:
    page.run(
        """for (const field of document.querySelectorAll('#fields input, #fields textarea')) {
             field.value = given[0][field.id.replace('field-', '')];
             field.dispatchEvent(new Event('input', { bubbles: true }));
           }""",
        texts,
    )


def ask(page: Browser) -> str:
    """What is said of the answer, once it is there."""
    before = page.run(
        "return document.querySelector('#answer').firstElementChild.dataset.old = '1'"
    )
    assert before
    page.click("#question .primary")
    page.until(lambda: page.count("#answer > :not([data-old])"))
    return page.text("#said")


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_tried_and_written_in_four_ways(page: Browser, task: str) -> None:
    model_of(page, task)
    wanted = TRIES[task]
    assert page.count("#tries button") == len(wanted)
    for place, (name, answer) in enumerate(wanted.items()):
        page.click("#tries button", place)
        fill(page, FIELDS | ({"texts": MASKED} if name == "fill-mask" else {}))
        ask(page)
        assert page.count(f"#answer {answer}"), page.text("#answer")
        assert not page.count("#answer .failure"), page.text("#answer")
        found = []
        for tab in range(4):
            page.click("#tabs button", tab)
            found.append(page.text("#code"))
        assert [code.split()[0] for code in found] == ["bertd", "from", "curl", "grpcurl"]
        assert all(f'"{task}"' in code or task in code for code in found)


def test_the_written_requests_run(page: Browser, tmp_path: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    odd = {"texts": 'it\'s "the" $cat\n-a dog `rain`'}
    for task in TASKS:
        model_of(page, task)
        fill(page, FIELDS | (odd if task != "fill-mask" else {"texts": MASKED}))
        for tab, program in enumerate(("sh", sys.executable, "sh")):
            page.click("#tabs button", tab)
            code = page.run("return document.querySelector('#code').textContent")
            if tab == 2 and "grpcurl" in code:
                continue
            ran = subprocess.run(
                [program, "-c", code], env=environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, (code, ran.stderr)
            assert ran.stdout, code
            assert "INVALID" not in ran.stdout


def test_errors_are_shown_as_the_server_says_them(page: Browser) -> None:
    model_of(page, EMBED)
    fill(page, {"texts": ""})
    ask(page)
    said = page.text("#answer .failure")
    assert "texts is empty: send" in said
    assert "texts" in page.text("#answer .failure dd")
    fill(page, {"texts": "the cat\n" + "the cat sat " * 40})
    ask(page)
    assert page.count("#answer td[style]") == 1
    assert "tokens" in page.text("#answer .failure")
    assert "1 without" in page.text("#said")


def test_the_live_part_moves_and_can_be_held(page: Browser, served: HttpServed) -> None:
    model_of(page, EMBED)
    page.until(lambda: page.text("#figures dd"))
    calls = "#figures dd.more"

    def count() -> int:
        return int(page.text(calls).split()[0])

    before = count()
    for number in range(3):
        given = [f"the cat saw {number}", "a dog and the rain sat on a mat"]
        served.get("/v1/embeddings", {"model": EMBED, "input": given})
    page.until(lambda: count() == before + 3)
    page.until(lambda: page.count("#batches li") and page.count("#newest svg") == 2)
    assert "2 texts" in page.text("#batches li")
    assert page.count("#batches li .text-bar, #batches svg .text-bar") >= 2
    late = {"x-request-timeout-ms": "0"}
    assert served.ask("/v1/embeddings", {"model": EMBED, "input": "no"}, headers=late).status == 504
    page.click("#pause")
    held = count()
    served.get("/v1/embeddings", {"model": EMBED, "input": "the sea"})
    page.run("await new Promise(done => setTimeout(done, 1500))")
    assert count() == held
    page.click("#pause")
    page.until(lambda: count() == held + 1)


def test_all_of_it_works_by_keyboard(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys  # noqa: PLC0415

    focus = "return document.activeElement.id || document.activeElement.textContent.trim()"
    seen: list[str] = []
    page.run("document.activeElement.blur()")
    for _ in range(40):
        page.keys(Keys.TAB)
        seen.append(page.run(focus))
        shown = page.run("return getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        assert shown, seen
        if seen[-1] == "code":
            break
    assert seen[0] == "Go to the try"
    assert {"English", "한국어", "Dark", "field-texts", "Ask", "copy", "code"} <= {*seen}
    page.run("document.querySelector('#field-texts').focus()")
    page.keys(Keys.TAB, Keys.ENTER)
    page.until(lambda: page.count("#answer .failure, #answer td"))
    page.run("document.querySelector('#tab-command').focus()")
    page.keys(Keys.ARROW_RIGHT)
    assert page.run(focus) == "tab-python"
    page.keys(Keys.END)
    assert page.run(focus) == "tab-grpcurl"
    assert page.text("#code").startswith("grpcurl")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_and_nothing_is_too_wide(page: Browser, scheme: str, width: int) -> None:
    source = axe_source()
    page.colours(scheme)
    page.size(width, 900)
    for language in range(2):
        page.click("#languages button", language)
        for task in TASKS:
            model_of(page, task)
            for place in range(len(TRIES[task])):
                page.click("#tries button", place)
                ask(page)
                assert page.run("return document.documentElement.scrollWidth") <= width
                page.driver.execute_script(source)
                found = page.run(
                    """const options = { resultTypes: ['violations'] };
                       const { violations } = await axe.run(document, options);
                       return violations.map(({ id, nodes: [{ html, failureSummary }] }) =>
                         [id, html, failureSummary]);"""
                )
                assert found == [], (scheme, width, task)


def test_a_browser_s_language_comes_first_and_both_say_the_same_things(
    page: Browser, served: HttpServed, tmp_path: Path
) -> None:
    lacking = page.run(
        """const { WORDS, EXAMPLES } = await import('/console/words.js');
           const places = text => (text.match(/{\\w+}/g) ?? []).sort().join('');
           const keys = one => Object.entries(one).flatMap(([name, value]) =>
             typeof value === 'string' ? [name + places(value)]
                                       : keys(value).map(inner => name + '.' + inner));
           const differ = (a, b) => keys(a).filter(name => !keys(b).includes(name));
           return [WORDS, EXAMPLES].flatMap(({ en, ko }) =>
             [...differ(en, ko), ...differ(ko, en)]);"""
    )
    assert lacking == []
    assert page.run("return document.documentElement.lang") == "en"
    page.click("#languages button", 1)
    page.click("#themes button", 2)
    assert page.text("#try-title") == "시험하기"
    assert page.run("return document.activeElement.textContent") == "어둡게"
    page.open(served.url)  # both are remembered
    page.until(lambda: page.count("#models button"))
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    assert page.text("#try-title") == "시험하기"
    with chromium(tmp_path, "ko-KR") as korean:
        korean.open(served.url)
        assert korean.run("return document.documentElement.lang") == "ko"


def test_a_key_is_asked_for_and_kept_in_memory_alone(
    window: Browser, tasks_folder: Path, tmp_path: Path
) -> None:
    key = new_key("one")
    file = write_keys(tmp_path / "keys.json", {"one": key})
    options: dict[str, Any] = {"model_control": "explicit", "load_models": EMBED}
    with HttpServed(tasks_folder, api_keys=file, **options) as guarded:
        window.open(guarded.url)
        window.until(lambda: window.count("#door"))
        assert not window.count("#console")
        assert EMBED not in window.text("body")
        for given, shown in (("wrong", "#door-error"), (key, "#models button")):
            window.driver.find_element("id", "key").send_keys(given)
            window.click("#door .primary")
            window.until(partial(window.text, shown))
        window.said()  # that there is no key yet, and that one was wrong
        fill(window, {"texts": "the cat\na dog"})
        ask(window)
        assert window.count("#answer td[style]") == 4
        assert key not in window.text("body")  # the request names a variable
        assert "BERTD_API_KEY" in window.text("#code")
        kept = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert key not in window.run(kept)
        window.click("#forget")
        window.until(lambda: window.count("#door"))
        assert EMBED not in window.text("body")
        window.open(guarded.url)
        window.until(lambda: window.count("#door"))
