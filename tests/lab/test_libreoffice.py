"""Pages of LibreOffice's help: what is read and drawn, and what a stopped preparation keeps."""

import io
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import TfdsSource
from lco_jax.data.records import Exchange
from lco_jax.data.sources.datasets import open_dataset, prepare
from lco_jax.data.sources.open import open_source
from lco_jax.lab.corpora import libreoffice, libreoffice_source
from lco_jax.lab.corpora.libreoffice_source import (
    Block,
    check_packages,
    font_files,
    read_pages,
)
from lco_jax.lab.corpora.page_picture import SIDE_PX, PagePainter
from lco_jax.lab.pages import page_task, page_tasks
from tests.lab.help_pages import sentence, write_help, write_page


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    return write_help(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def painter(packages):
    try:
        return PagePainter(font_files(packages))
    except OSError as error:
        pytest.skip(f"Pango is not on this machine: {error}")


@pytest.fixture
def pinned(packages, monkeypatch):
    """The made-up content is what is expected."""
    with pytest.raises(ValueError, match="expected") as caught:
        check_packages(packages, "id")
    found = dict(re.findall(r"'(en-US|id|fonts)': '([0-9a-f]{64})'", str(caught.value))[:3])
    assert set(found) == {"en-US", "id", "fonts"}
    monkeypatch.setattr(libreoffice_source, "_SHA256", found)


def test_pages_are_those_translated(packages, tmp_path):
    pages = list(read_pages(packages, "id"))
    assert len(pages) == 12
    page = pages[3]
    assert (page.id, page.title) == ("scalc/03", "Row 3")
    assert page.blocks[0] == Block("title", "Baris 3")
    assert [block.kind for block in page.blocks[1:]] == ["text", "item", "box", "box"]
    assert page.blocks[1].text == f"{sentence('id', 15)} &b"

    folder = write_help(tmp_path / "more", count=2)
    long = "".join(f'<p id="p{i}" class="paragraph">{"kata " * 60}</p>' for i in range(9))
    for language in ("en-US", "id"):
        write_page(folder, language, "a/same", "Title", f'<p id="p">{"left as it is " * 20}</p>')
        write_page(folder, language, "a/short", f"Short {language}", '<p id="p">few</p>')
    write_page(folder, "en-US", "a/long", "Long", long.replace("kata", "word"))
    write_page(folder, "id", "a/long", "Panjang", long)
    write_page(folder, "en-US", "a/twin", "Sheet 0", '<p id="p">word</p>')
    write_page(folder, "id", "a/twin", "Lain", f'<p id="p">{"kata " * 40}</p>')
    found = {page.id: page for page in read_pages(folder, "id")}
    assert set(found) == {"a/long", "a/twin", "scalc/01"}  # scalc/00 has the title of a/twin
    assert len(found["a/long"].blocks) == 4  # no more than can be seen


def test_pages_are_held_out_in_all_languages(packages):
    held_out = {
        language: {page.id for page in read_pages(packages, language) if page.is_held_out}
        for language in ("id", "vi")
    }
    assert held_out["id"] == held_out["vi"] and 0 < len(held_out["id"]) < 6


def test_a_picture_shows_its_text_and_nothing_else(painter):
    blocks = [Block("title", "Judul"), Block("text", "satu\u200bdua"), Block("item", "x < y & z")]
    png, text = painter.paint(blocks, "id")
    assert text == "Judul\nsatudua\nx < y & z"
    with Image.open(io.BytesIO(png)) as image:
        assert (image.size, image.mode) == ((SIDE_PX, SIDE_PX), "L")
        ink = np.asarray(image) < 128
    assert 0.002 < ink.mean() < 0.1
    # Lines of text, from the top: the title is set larger than the others.
    rows = np.flatnonzero(np.diff(ink.any(axis=1).astype(int)))
    heights = rows[1::2] - rows[::2]
    assert len(heights) >= 3 and heights[0] > heights[1] and rows[-1] < SIDE_PX / 2

    many = [Block("title", "Judul"), *(Block("text", "kata " * 30) for _ in range(9))]
    png, text = painter.paint(many, "id")
    shown = text.count("\n")
    assert 2 <= shown < 9
    with Image.open(io.BytesIO(png)) as image:
        bottom = np.flatnonzero((np.asarray(image) < 128).any(axis=1))[-1]
    fewer, _ = painter.paint(many[: shown + 1], "id")
    assert fewer == png  # what does not fit is not there in part
    assert bottom > SIDE_PX / 2


def test_dataset(packages, painter, pinned, tmp_path, monkeypatch):
    options = {"source_dir": str(packages), "work_dir": str(tmp_path / "work")}
    data = str(tmp_path / "tfds")
    paint, painted = PagePainter.paint, []

    def fail_at_fifth(self, blocks, language):
        if len(painted) == 5:
            raise KeyboardInterrupt
        painted.append(blocks)
        return paint(self, blocks, language)

    monkeypatch.setattr(PagePainter, "paint", fail_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        prepare("libreoffice/id", data, **options)
    monkeypatch.setattr(PagePainter, "paint", lambda *a: (painted.append(a), paint(*a))[1])
    prepare("libreoffice/id", data, **options)
    assert len(painted) == 12  # none was drawn twice

    expected = {page.id: page for page in read_pages(packages, "id")}
    found = {}
    for split in ("train", "test"):
        pages = pickle.loads(pickle.dumps(open_dataset("libreoffice/id", split, data)))
        for index in range(len(pages)):
            record = pages[index]
            assert expected[record["id"]].is_held_out == (split == "test")
            found[record["id"]] = record
    assert set(found) == set(expected)
    record = found["scalc/03"]
    assert record["name"] == "Row 3"
    assert record["text"].splitlines()[:2] == ["Baris 3", f"{sentence('id', 15)} &b"]
    with Image.open(io.BytesIO(record["image"])) as image:
        assert image.size == (SIDE_PX, SIDE_PX)

    # As a stage reads it: the picture is to be read.
    source = TfdsSource("libreoffice/id", data_dir=data, prompt="Read.", response="text")
    exchange = open_source(source, Exchange).records[0]
    assert exchange.prompt.text == "Read." and exchange.prompt.images == (
        found[exchange.id]["image"],
    )
    assert exchange.response == found[exchange.id]["text"]

    # As a task asks for it.
    task = page_task("LibreOfficePages-id", tmp_path / "media", data)
    assert set(page_tasks(tmp_path / "media", data)) == {task.name}
    assert len(task.queries) == len(task.documents) == sum(p.is_held_out for p in expected.values())
    texts = page_task("LibreOfficePages-id", tmp_path, data, max_pages=2, as_text=True)
    assert [q.text for q in texts.queries] == [q.text for q in task.queries[:2]]
    for query, document, text in zip(texts.queries, task.documents, texts.documents, strict=False):
        (own,) = (page for page in found.values() if page["name"] == query.text)
        assert text.text == own["text"]
        with open(document.images[0], "rb") as file:
            assert file.read() == own["image"]


def test_errors_say_what_to_do(packages, tmp_path):
    with pytest.raises(ValueError, match="no pages in 'th'; choose one of"):
        open_dataset("libreoffice/th", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"prepare_data\.py libreoffice --config id"):
        open_dataset("libreoffice/id", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no pages; unpack Debian's libreoffice-help-km"):
        check_packages(packages, "km")
    with pytest.raises(FileNotFoundError, match="fonts-noto-core"):
        font_files(tmp_path)
    assert libreoffice.LANGUAGES == ("id", "vi", "km")
