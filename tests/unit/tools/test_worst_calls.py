"""The table of docs/load.md is what its results say."""

import json

from tools.worst_calls import BEFORE, DOCUMENT, NOW, RESULTS, table, written


def test_the_document_is_what_the_results_say() -> None:
    saved = json.loads(RESULTS.read_text(encoding="utf-8"))
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == written(document, table(saved.get(NOW, {}), saved.get(BEFORE, {})))
