"""Emoji: the committed files, the dataset made of them, and how they are drawn and held apart."""

import io
import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from lco_jax.data.media.config import PixelConfig
from lco_jax.data.media.images import image_patches, load_image
from lco_jax.data.sources.datasets import open_dataset
from lco_jax.lab.corpora import emoji_source
from lco_jax.lab.corpora.emoji import Emoji
from lco_jax.lab.corpora.square import square_png

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "emoji"


def read_lines(split: str) -> dict[str, dict]:
    with (FOLDER / f"emoji_{split}.jsonl").open(encoding="utf-8") as file:
        return {line["id"]: line for line in map(json.loads, file)}


def symbol(key: str) -> str:
    return "".join(chr(int(code, 16)) for code in key.split("-"))


# ---------------------------------------------------------------------------- committed files


def test_committed_files():
    train, test = read_lines("train"), read_lines("test")
    assert [len(train), len(test)] == [1352, 250]
    lines = [*train.values(), *test.values()]
    for language in emoji_source.LANGUAGES:
        assert all(line["names"][language].strip() for line in lines)
    assert len({line["names"]["en"] for line in lines}) == len(lines)
    motifs = [{emoji_source.motif(symbol(key)) for key in split} for split in (train, test)]
    assert motifs[0].isdisjoint(motifs[1])
    with zipfile.ZipFile(FOLDER / "pictures.zip") as pictures:
        assert set(pictures.namelist()) == {f"{line['id']}.png" for line in lines}
        seen = set()
        for name in pictures.namelist():
            picture = load_image(pictures.read(name))
            assert picture.size == (56, 56)
            assert np.asarray(picture).min() < 250, name  # something is drawn
            seen.add(picture.tobytes())
    assert len(seen) == len(lines)
    assert "UNICODE LICENSE V3" in (FOLDER / "LICENSE.cldr").read_text()
    assert "SIL Open Font License" in (FOLDER / "LICENSE.noto-emoji").read_text()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


def test_names_fit_their_pictures():
    lines = read_lines("train") | read_lines("test")
    assert lines["1f408"]["names"]["en"] == "cat"
    assert lines["1f408"]["names"]["id"] == "kucing"
    tomato = zipfile.ZipFile(FOLDER / "pictures.zip").read("1f345.png")
    assert lines["1f345"]["names"]["ms"] == "tomato"
    red, green, _ = np.asarray(load_image(tomato))[20:40, 20:40].mean((0, 1))
    assert red > 2 * green


# -------------------------------------------------------------------------------------- dataset


def test_dataset_gives_back_the_files(tmp_path):
    pictures = zipfile.ZipFile(FOLDER / "pictures.zip")
    for split in ("train", "test"):
        lines = read_lines(split)
        source = pickle.loads(pickle.dumps(open_dataset("emoji", split, str(tmp_path))))
        assert len(source) == len(lines)
        assert {record["id"] for record in source} == set(lines)
        for index in range(0, len(source), 7):
            record = dict(source[index])
            assert bytes(record.pop("image")) == pictures.read(f"{record['id']}.png")
            assert record.pop("name") == record["names"]["en"]
            assert record == lines[record["id"]]
    thai = open_dataset("emoji/th", "test", str(tmp_path))[3]
    assert thai["name"] == thai["names"]["th"]
    picture = load_image(source[3]["image"])
    assert image_patches(picture, PixelConfig()).grid == (1, 4, 4)
    with pytest.raises(IndexError, match="record 250 of 250"):
        source[250]
    with pytest.raises(ValueError, match="emoji has no names in 'xx'"):
        Emoji(config_name="xx", data_dir=str(tmp_path))


def test_reading_needs_neither_tensorflow_nor_torch(tmp_path):
    code = (
        "import sys; from lco_jax.data.sources.datasets import open_dataset;"
        f"emoji = open_dataset('emoji', 'test', {str(tmp_path)!r});"
        "print(len(emoji[0]['image']) > 100,"
        "sorted({'torch', 'tensorflow', 'jax'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "True []", run.stderr


# --------------------------------------------------------------------------------- how it is made


def make_emoji(text: str) -> emoji_source.Emoji:
    return emoji_source.Emoji(symbol=text, names={"en": text}, keywords=[], picture=b"")


def test_variants_of_a_motif_stay_together():
    same = [
        ("👨‍🍳", "👩‍🍳", "🧑‍🍳"),
        ("🏃", "🏃‍♀️", "🏃‍♂️‍➡️"),
        ("👨‍👩‍👧", "👩‍👩‍👦‍👦"),
    ]
    for group in same:
        assert len({emoji_source.motif(text) for text in group}) == 1
    assert emoji_source.motif("👨‍🍳") != emoji_source.motif("👨‍🔧")


def test_split(monkeypatch):
    monkeypatch.setattr(emoji_source, "NUM_TEST", 20)
    rng = random.Random(0)
    jobs = [chr(code) for code in range(0x1F330, 0x1F330 + 60)]
    symbols = [f"{person}\u200d{job}" for job in jobs for person in "👨👩🧑"[: rng.randint(1, 3)]]
    emoji = [make_emoji(text) for text in symbols]
    train, test = emoji_source.split_emoji(emoji, random.Random(1))
    assert (train, test) == emoji_source.split_emoji(emoji, random.Random(1))
    assert len(test) == 20
    assert sorted(one.id for one in train + test) == sorted(one.id for one in emoji)
    assert {one.symbol[-1] for one in train}.isdisjoint(one.symbol[-1] for one in test)


def test_shrunk_pictures_lie_on_white():
    glyph = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
    glyph.paste((200, 30, 40, 255), (34, 32, 102, 96))
    picture = np.asarray(Image.open(io.BytesIO(square_png(glyph)))).astype(int)
    assert picture.shape == (56, 56, 3)
    assert (picture[[0, -1]] == 255).all()
    assert (picture[24:32, 24:32] == (200, 30, 40)).all()
    # Edges mix the colour with white, never with the black that lies under transparency.
    assert picture[..., 0].min() >= 195


def test_what_is_left_out(tmp_path, monkeypatch):
    """Skin tones, flags, ASCII, unjoined sequences, twins, unknown glyphs, missing names."""

    class Font:
        def getlength(self, text: str) -> float:
            return 272 if text == "👩‍🔬" else 136

    def draw(text: str, font: Font) -> Image.Image:
        shade = {"🐶": 10, "🐕": 10, "❓": None}.get(text, 50)
        return Image.new("RGBA", (136, 128), (0, 0, 0, 0) if shade is None else (shade, 0, 0, 255))

    monkeypatch.setattr(ImageFont, "truetype", lambda *_: Font())
    monkeypatch.setattr(emoji_source, "draw", draw)
    symbols = ["🐶", "🐕", "🐈", "❓", "👋🏽", "🇮🇩", "🏴‍☠", "#", "👩‍🔬", "🍅"]
    for kind, part in (("annotations", symbols[:5]), ("annotationsDerived", symbols[5:])):
        for language in emoji_source.LANGUAGES:
            folder = tmp_path / kind / "package" / kind / language
            folder.mkdir(parents=True)
            entries = {text: {"tts": [f"{language} {text}"], "default": ["x"]} for text in part}
            if language == "vi":
                entries.pop("🍅", None)
            text = json.dumps({kind: {"annotations": entries}})
            (folder / "annotations.json").write_text(text, encoding="utf-8")
    found = emoji_source.read_emoji(tmp_path)
    assert [one.symbol for one in found] == ["🐈", "🐕"]  # 🐶 looks like 🐕, which comes first
    assert found[0].id == "1f408"
    assert found[0].names["ms"] == "ms 🐈"
    assert found[0].keywords == ["x"]
