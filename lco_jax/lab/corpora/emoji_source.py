"""Pictures of emoji with their names in five languages, for `data/emoji`.

Pictures are drawn from Debian's colour font, names are those of the Unicode CLDR.
"""

import json
import random
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lco_jax.lab.corpora import debian
from lco_jax.lab.corpora.committed import Described, write_described
from lco_jax.lab.corpora.square import square_png

LANGUAGES = ("en", "id", "th", "vi", "ms")
NUM_TEST = 250

ARCHIVE = "pictures.zip"
_FONT_PACKAGE = "fonts-noto-color-emoji=2.042-0+deb12u1"
_FONT = Path("usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_FONT_LICENCE = Path("usr/share/doc/fonts-noto-color-emoji/copyright")
_FONT_PX = 109
"""The only size in this font, whose pictures are bitmaps."""
_GLYPH_PX = (136, 128)
_NAME_PACKAGES = {
    "annotations": "cldr-annotations-full@48.2.0",
    "annotationsDerived": "cldr-annotations-derived-full@48.2.0",
}
"""Single characters, and sequences of them."""

# Skin tones, hair components, letters and tags of flags, white and black flags, ASCII.
_LEFT_OUT = re.compile(
    "[\U0001f3fb-\U0001f3ff\U0001f9b0-\U0001f9b3\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]"
    "|[\U0001f3f3\U0001f3f4]|^[\x00-\x7f]"
)
_JOINERS = dict.fromkeys(map(ord, "\u200d\ufe0f\u2640\u2642\u27a1"))
"""What sequences add for sex and direction, and to hold together."""
_PERSONS = str.maketrans("👨👩👦👧👴👵", "🧑🧑🧒🧒🧓🧓")


@dataclass(frozen=True)
class Emoji:
    """A picture and what it is called."""

    symbol: str
    names: dict[str, str]
    """By language."""
    keywords: list[str]
    """In English."""
    picture: bytes
    """PNG, RGB on white."""

    @property
    def id(self) -> str:
        """Code points, e.g. `"1f468-200d-1f373"`."""
        return "-".join(f"{ord(character):x}" for character in self.symbol)


def fetch_packages(folder: Path) -> Path:
    """Download the packages of font and names into `folder` and unpack them there.

    Raises:
        subprocess.CalledProcessError: npm failed; it says why on the console.
        FileNotFoundError: the machine has no npm, apt-get and dpkg.
        ConnectionError: the font could not be downloaded.
    """
    for kind, package in _NAME_PACKAGES.items():
        command = ("npm", "pack", "--silent", package)
        run = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        with tarfile.open(folder / run.stdout.strip()) as file:
            file.extractall(folder / kind, filter="data")
    debian.fetch_packages((_FONT_PACKAGE,), folder).rename(folder / "font")
    return folder


def write_emoji(packages: Path, output: Path, seed: int = 0) -> None:
    """Write `emoji_train.jsonl`, `emoji_test.jsonl`, `pictures.zip` and the licences.

    Args:
        packages: where `fetch_packages` unpacked them.
        output: folder of the files.
        seed: of the choice of the held-out emoji.

    Raises:
        FileNotFoundError: `packages` lacks a file.
    """
    train, test = split_emoji(read_emoji(packages), random.Random(seed))
    splits = {"train": [_describe(one) for one in train], "test": [_describe(one) for one in test]}
    write_described(output, "emoji", splits, ARCHIVE, ".png")
    shutil.copyfile(packages / "font" / _FONT_LICENCE, output / "LICENSE.noto-emoji")
    shutil.copyfile(packages / "annotations/package/LICENSE", output / "LICENSE.cldr")


def _describe(emoji: Emoji) -> Described:
    return {"id": emoji.id, "names": emoji.names, "keywords": emoji.keywords}, emoji.picture


def read_emoji(packages: Path) -> list[Emoji]:
    """All emoji with a picture of their own and a name in every language, by code points.

    Flags and skin tones are left out.
    """
    annotations = {language: _read_annotations(packages, language) for language in LANGUAGES}
    known = set.intersection(*(set(entries) for entries in annotations.values()))
    font = ImageFont.truetype(packages / "font" / _FONT, _FONT_PX)
    found, seen = [], set()
    for symbol in sorted(known):
        # Sequences that the font does not join are wider than one picture.
        if _LEFT_OUT.search(symbol) or font.getlength(symbol) > _GLYPH_PX[0]:
            continue
        glyph = draw(symbol, font)
        if glyph.getbbox() is None or glyph.tobytes() in seen:  # unknown to the font, or a twin
            continue
        seen.add(glyph.tobytes())
        found.append(
            Emoji(
                symbol=symbol,
                names={lang: entries[symbol]["tts"][0] for lang, entries in annotations.items()},
                keywords=annotations["en"][symbol].get("default", []),
                picture=square_png(glyph),
            )
        )
    return found


def _read_annotations(packages: Path, language: str) -> dict[str, dict[str, list[str]]]:
    """Per symbol: its name (`tts`) and keywords (`default`)."""
    entries: dict[str, dict[str, list[str]]] = {}
    for kind in _NAME_PACKAGES:
        path = packages / kind / "package" / kind / language / "annotations.json"
        entries |= json.loads(path.read_text(encoding="utf-8"))[kind]["annotations"]
    return {symbol: entry for symbol, entry in entries.items() if "tts" in entry}


def draw(symbol: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """An emoji at the size of the font, on a transparent ground."""
    glyph = Image.new("RGBA", _GLYPH_PX)
    ImageDraw.Draw(glyph).text((0, 0), symbol, font=font, embedded_color=True)
    return glyph


def split_emoji(emoji: list[Emoji], rng: random.Random) -> tuple[list[Emoji], list[Emoji]]:
    """Emoji to train on and held-out ones, with all variants of a motif on one side."""
    motifs = defaultdict(list)
    for one in emoji:
        motifs[motif(one.symbol)].append(one)
    order = sorted(motifs)
    rng.shuffle(order)
    held_out: set[str] = set()
    for key in order:
        if len(held_out) + len(motifs[key]) <= NUM_TEST:
            held_out.update(one.id for one in motifs[key])
    train = [one for one in emoji if one.id not in held_out]
    return train, [one for one in emoji if one.id in held_out]


def motif(symbol: str) -> str:
    """What a symbol has in common with its variants of other sex, direction or number."""
    return "".join(sorted(set(symbol.translate(_JOINERS).translate(_PERSONS))))
