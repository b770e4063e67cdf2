"""The table of what was tried for the quickstart."""

import json
from pathlib import Path

from benchmarks.lab_search import render

DOCS = Path(__file__).parents[2] / "docs" / "lab"


def test_the_page_is_what_the_trials_make():
    trials = json.loads((DOCS / "search.json").read_text())
    assert (DOCS / "search.md").read_text() == render(trials)
    changed = json.loads(json.dumps(trials))
    changed[0]["mrr"]["audio->text"]["after raw"] += 0.1
    assert render(changed) != render(trials)
