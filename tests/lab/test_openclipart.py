"""Open Clip Art: what is read of its packages, and the dataset made of them."""

import importlib.util
import io
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import TfdsSource
from lco_jax.data.records import Exchange
from lco_jax.data.sources.datasets import open_dataset, prepare
from lco_jax.data.sources.open import open_source
from lco_jax.lab.corpora import openclipart_source
from lco_jax.lab.corpora.openclipart_source import check_packages, read_clip_art
from lco_jax.lab.corpora.square import square_png

SVG = """<?xml version="1.0"?>
<!DOCTYPE svg [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/"
     xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><metadata><rdf:RDF>
<dc:title>{title}</dc:title>
<dc:creator><Agent><dc:title>{creator}</dc:title></Agent></dc:creator>
<dc:subject><rdf:Bag>{keywords}</rdf:Bag></dc:subject>
</rdf:RDF></metadata></svg>"""


def write_art(
    packages, key, title, keywords=(), size=(80, 60), ink=(30, 20, 50, 40), creator="Somebody"
):
    folder = packages / "usr/share/openclipart"
    svg, png = (folder / kind / f"{key}.{kind}" for kind in ("svg", "png"))
    for file in (svg, png):
        file.parent.mkdir(parents=True, exist_ok=True)
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    svg.write_text(SVG.format(title=title, keywords=items, creator=creator), encoding="utf-8")
    picture = Image.new("RGBA", size)
    picture.paste((200, 30, 40, 255), ink)
    picture.save(png)
    return png


@pytest.fixture
def packages(tmp_path):
    folder = tmp_path / "packages"
    write_art(folder, "animals/dogs/bored_dog_01", "Bored_Dog 2 (b/w)", ("hash", "Mammal", "dog"))
    write_art(folder, "food/cake_01", "cake &secret; slice", ("unsorted",))
    write_art(folder, "food/cake_02", "Clipart by N. - cake")
    write_art(folder, "food/long", "a b one two three four five six seven")
    write_art(folder, "food/number_8", "8")
    write_art(folder, "food/pollo_archi", "pollo", creator="Architetto Francesco Rollandin")
    write_art(folder, "food/architects_lunch", "BMWStyle TV-lunch 3")
    write_art(folder, "food/mushroom", "Mushroom")
    write_art(folder, "signs_and_symbols/flags/chad", "chad")
    for number in range(4):
        write_art(folder, f"tools/part_{number}", f"AIGA symbol {number}")
    return folder


@pytest.fixture
def pinned(packages, monkeypatch):
    """The made-up content is what is expected."""
    with pytest.raises(ValueError, match="expected") as caught:
        check_packages(packages)
    found = re.search(r"sha256 ([0-9a-f]{64})", str(caught.value))[1]
    monkeypatch.setattr(openclipart_source, "_SHA256", found)


def test_what_is_read(packages, monkeypatch):
    found = {art.id: art for art in read_clip_art(packages, {"mushroom"})}
    assert set(found) == {"animals/dogs/bored_dog_01", "food/architects_lunch", "food/cake_01"}
    assert found["food/architects_lunch"].name == "bmw style tv lunch"
    dog = found["animals/dogs/bored_dog_01"]
    assert (dog.name, dog.keywords) == ("bored dog", ("mammal", "dog"))
    # Nothing outside the file is read, and folders stand in for useless keywords.
    assert (found["food/cake_01"].name, found["food/cake_01"].keywords) == ("cake", ("food",))
    monkeypatch.setattr(openclipart_source, "_MAX_PIXELS", 80 * 60 - 1)
    assert not list(read_clip_art(packages))


def test_pictures_fill_their_squares(packages):
    png = write_art(packages, "food/tall", "tall", size=(70, 300), ink=(10, 40, 30, 240))
    (art,) = (art for art in read_clip_art(packages) if art.id == "food/tall")
    picture = np.asarray(Image.open(io.BytesIO(art.picture()))).astype(int)
    assert picture.shape == (56, 56, 3)
    ink = (picture[..., 1] < 128).nonzero()
    assert (ink[0].min(), ink[0].max()) == (0, 55)
    assert ink[1].max() - ink[1].min() + 1 == round(56 * 20 / 200)
    assert abs(ink[1].mean() - 27.5) <= 1
    # A grey picture, and one that shows nothing at all.
    for blank in (Image.new("LA", (5, 9), (255, 0)), Image.new("RGB", (9, 5), "white")):
        blank.save(png)
        assert (np.asarray(Image.open(io.BytesIO(art.picture()))) == 255).all()
    png.write_bytes(png.read_bytes()[:45])
    with pytest.raises(ValueError, match=r"tall\.png: .*fetch them again"):
        art.picture()
    png.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"tall\.png is no PNG file"):
        list(read_clip_art(packages))
    wide = Image.open(io.BytesIO(square_png(Image.new("RGB", (4000, 1)))))
    assert wide.size == (56, 56)


def test_dataset(packages, pinned, tmp_path):
    data = str(tmp_path / "tfds")
    with pytest.raises(FileNotFoundError, match=r"prepare_data\.py openclipart"):
        open_dataset("openclipart", data_dir=data)
    prepare("openclipart", data, source_dir=str(packages))
    pictures = pickle.loads(pickle.dumps(open_dataset("openclipart", data_dir=data)))
    records = {pictures[index]["id"]: pictures[index] for index in range(len(pictures))}
    expected = {art.id: art for art in read_clip_art(packages, {"mushroom"})}  # a held-out emoji
    assert set(records) == set(expected)
    for key, record in records.items():
        art = expected[key]
        assert (record["name"], tuple(record["keywords"])) == (art.name, art.keywords)
        assert record["image"].startswith(b"\x89PNG")
        with Image.open(io.BytesIO(record["image"])) as image:
            assert image.size == (56, 56)
    with pytest.raises(IndexError, match="record 3 of 3"):
        pictures[3]

    source = TfdsSource("openclipart", data_dir=data, prompt="What?", response="keywords")
    exchanges = open_source(source, Exchange).records
    answers = {exchange.id: exchange.response for exchange in map(exchanges.__getitem__, range(3))}
    assert answers["animals/dogs/bored_dog_01"] == "mammal, dog"


def test_errors_say_what_to_do(packages, pinned, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no config 'de'"):
        open_dataset("openclipart/de", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no SVG files; unpack Debian's openclipart-svg"):
        check_packages(tmp_path / "elsewhere")
    png = packages / "usr/share/openclipart/png/food/cake_01.png"
    content = png.read_bytes()
    png.write_bytes(content + b" ")
    with pytest.raises(ValueError, match="other content than this dataset is made of"):
        check_packages(packages)
    png.write_bytes(content)
    check_packages(packages)
    with monkeypatch.context() as patch, pytest.raises(ModuleNotFoundError, match="documents"):
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        prepare("openclipart", str(tmp_path / "tfds"), source_dir=str(packages))
    write_art(packages, "food/more", "more")
    with pytest.raises(ValueError, match="other content than this dataset is made of"):
        check_packages(packages)
    shutil.rmtree(packages / "usr/share/openclipart/png/food")
    with pytest.raises(FileNotFoundError, match="openclipart-png"):
        list(read_clip_art(packages))
