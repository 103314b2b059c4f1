"""Looks at pages in Chromium (Qt WebEngine), without a display; a program, not a test.

::

    PAGE FOLDER ──> for each width and colour scheme: load, look, photograph ──> JSON on stdout

It is a process of its own since Qt wants the main thread, and takes its flags from the start.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SCHEMES = {"dark": 0, "light": 1}  # Blink's numbers
SCHEME = sys.argv[3]
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = (
    "--no-sandbox --disable-gpu --force-device-scale-factor=1 "
    f"--blink-settings=preferredColorScheme={SCHEMES[SCHEME]}"
)

from PySide6.QtCore import QTimer, QUrl  # noqa: E402 - the flags come first
from PySide6.QtWebEngineCore import (  # noqa: E402
    QWebEnginePage,
    QWebEngineProfile,
    QWebEngineUrlRequestInfo,
    QWebEngineUrlRequestInterceptor,
)
from PySide6.QtWebEngineWidgets import QWebEngineView  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

LOOK = """
JSON.stringify((() => {
  const box = each => { const b = each.getBoundingClientRect();
                        return [b.left, b.top, b.right, b.bottom]; };
  return {
    width: innerWidth,
    scroll: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    charts: [...document.querySelectorAll('figure')].map(figure => {
      const svg = figure.querySelector('svg');
      return {
        key: figure.id,
        box: box(svg),
        title: svg.querySelector('title').textContent,
        says: svg.querySelector('desc').textContent,
        rows: figure.querySelectorAll('tbody tr').length,
        marks: [...svg.querySelectorAll('path, use')].filter(each => {
          const [left, top, right, bottom] = box(each);
          const seen = getComputedStyle(each);
          return right - left + bottom - top > 0 && (seen.stroke + seen.fill).includes('rgb');
        }).length,
        texts: [...svg.querySelectorAll('text')].map(each =>
          [each.textContent, ...box(each), getComputedStyle(each).fill]),
      };
    }),
    wide: [...document.querySelectorAll('main *')].filter(each =>
      !each.closest('.scroll') && !each.closest('svg') &&
      box(each)[2] > innerWidth + 0.5).map(each => each.tagName),
    ids: [...document.querySelectorAll('[id]')].map(each => each.id),
  };
})())
"""


class Page(QWebEnginePage):
    """A page that keeps what it says on its console."""

    said: list[str]

    def javaScriptConsoleMessage(  # noqa: N802 - Qt's name
        self, level: QWebEnginePage.JavaScriptConsoleMessageLevel, message: str, line: int, _: str
    ) -> None:
        self.said.append(f"{level.name}, line {line}: {message}")


class Requests(QWebEngineUrlRequestInterceptor):
    """Keeps what the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:  # noqa: N802 - Qt's name
        self.asked.append(info.requestUrl().toString()[:200])


def main(path: Path, folder: Path, widths: list[int]) -> None:
    """Look at the page at each width; print what was seen."""
    application = QApplication(sys.argv[:1])
    profile = QWebEngineProfile()  # nothing is kept
    requests = Requests()
    profile.setUrlRequestInterceptor(requests)
    view = QWebEngineView()
    page = Page(profile, view)
    page.said = []
    view.setPage(page)
    found: list[Any] = []

    def load() -> None:
        view.resize(widths[len(found)], 900)
        view.show()
        view.load(QUrl.fromLocalFile(str(path)))

    def loaded(well: bool) -> None:
        if not well:
            page.said.append("the page did not load")
        QTimer.singleShot(200, look)  # one frame at least

    def look() -> None:
        page.runJavaScript(LOOK, 0, seen)

    def seen(answer: str) -> None:
        found.append(json.loads(answer or "null"))
        view.grab().save(str(folder / f"{SCHEME}-{widths[len(found) - 1]}.png"))
        if len(found) < len(widths):
            load()
        else:
            application.quit()

    page.loadFinished.connect(loaded)
    load()
    application.exec()
    report = {"looks": found, "console": page.said, "requests": requests.asked}
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    os._exit(0)  # Qt's own end is slow, and may complain about the order of it


main(Path(sys.argv[1]), Path(sys.argv[2]), [int(each) for each in sys.argv[4:]])
