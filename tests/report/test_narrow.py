"""Every kind of page fits a screen of 390 pixels, also with long words and names."""

import json

import pytest
from PIL import Image

from lco_jax.data.records import Item
from lco_jax.lab.recipes import quickstart
from lco_jax.lab.report import SAMPLES_FILE, write_lab_report
from lco_jax.report.run_report import write_report
from lco_jax.report.search_page import write_search_page
from lco_jax.search.find import Found, Match, Ranking
from tests.lab.test_seeds import write_job
from tests.report.narrow import sideways
from tests.report.test_report import make_run

NAME = "a-folder-with-a-rather-long-name-and-a-date-2026-11-29T20-36-05"
WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft"
LONG = f"A text with https://example.org/an/address/{'0123456789abcdef' * 4}?q and {WORD}. " * 3


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    return folder


def test_run(folder):
    texts = [{"anchor": f"{i} {LONG}", "positive": f"{i} {WORD}"} for i in range(50)]
    make_run(folder, texts=texts)
    page = write_report(str(folder)).read_text()
    assert WORD in page
    assert not sideways(page)


def test_lab(folder):
    stages = {stage.name: stage.config for stage in quickstart().stages}
    write_job(folder, stages, num_pairs=8)
    lines = [{"anchor": f"{i} {LONG}", "positive": f"{i} {WORD}"} for i in range(8)]
    pairs = folder / "refine/evaluations/pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, lines)) + "\n")
    sample = {"kind": "image", "medium": "aGVsbG8=", "prompt": LONG, "expected": WORD}
    (folder / SAMPLES_FILE).write_text(json.dumps([{**sample, "response": LONG}]))
    page = write_lab_report(str(folder), list(stages)).read_text()
    assert WORD in page
    assert not sideways(page)


def test_search(folder):
    Image.new("RGB", (1600, 200)).save(folder / f"{WORD}.png")
    items = [Item(LONG), Item(id=WORD, images=(str(folder / f"{WORD}.png"),)), Item(WORD, id=LONG)]
    matches = [Match(rank, 0.5, rank, item) for rank, item in enumerate(items * 3, 1)]
    rankings = [Ranking(item, matches, "mixed") for item in items]
    errors = {4: f"{LONG} cannot be read"}
    found = Found(str(folder), f"{NAME}/{WORD}", rankings, 9, 9, errors, (LONG,))
    write_search_page(found, folder / "page.html", 10**6)
    page = (folder / "page.html").read_text()
    assert WORD in page
    assert not sideways(page)


def test_cells_have_the_words_of_their_columns(folder):
    make_run(folder)
    page = write_report(str(folder)).read_text()
    assert '<td data-label="change">' in page and '<td data-label="query" dir="auto">' in page


def test_what_is_too_wide_is_seen():
    """The oracle finds a wide table, a wide word and a wide image, also within what scrolls."""
    wide = "<table><tr>" + "<td>some words&nbsp;together</td>" * 9 + "</tr></table>"
    for content in (wide, f"<p>{WORD * 2}", '<div style="width: 500px">', "<pre>" + WORD * 2):
        assert sideways(f"<main>{content}</main>"), content
        assert sideways(f'<main><div style="overflow-x: auto">{content}</div></main>'), content
    assert not sideways("<main><p>short</p></main>")
