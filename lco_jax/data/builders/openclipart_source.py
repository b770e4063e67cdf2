"""Pictures of Open Clip Art with names and keywords, from Debian packages.

Titles and keywords stand in the SVG files, pixels are taken from the PNG files of the same names.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from lco_jax.data.builders.debian import content_digest
from lco_jax.data.builders.square import square_png
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import load_image

PACKAGES = ("openclipart-png=1:0.18+dfsg-19", "openclipart-svg=1:0.18+dfsg-19")

_FOLDER = Path("usr/share/openclipart")
_SHA256 = "61cd68b589a3f98a0b85fec25d7efe07b542b5947345d71cc8dbe1da9c981c87"
"""Of all SVG files."""
_ABSTRACT = (
    "computer/buttons",
    "geography",
    "shapes",
    "signs_and_symbols/flags",
    "signs_and_symbols/led",
    "special",
)
"""Folders of maps, flags and series, which words do not tell apart at this size."""
_FOREIGN = "architett"
"""In the file names of the one contributor whose titles are Italian."""
_MAX_NAMESAKES = 3
"""A title of more pictures says where they come from, not what they show."""
_MAX_WORDS = 6
_MAX_PIXELS = 2**24
"""A dozen files are larger, up to 30,000 pixels high."""
_OF_A_SERIES = re.compile(r"clipart by|part of|theme|icon ?set|svg", re.IGNORECASE)
_REMARK = re.compile(r"\(.*?\)")
_WORD = re.compile(r"[A-Za-z][a-z']*")
_KEYWORD = re.compile(r"[a-z]{3,}( [a-z]{3,})?")
_NO_KEYWORDS = {"hash", "unsorted", "icons", "icon", "appicon", "mimeicon", "menu"}
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class ClipArt:
    """A picture and what it is called."""

    id: str
    """Path without suffix, e.g. `"animals/mammals/contour_giraffe"`."""
    name: str
    """In lower case; some are in other languages than English."""
    keywords: tuple[str, ...]
    png: Path

    def picture(self) -> bytes:
        """As PNG, RGB on white, at the size of the emoji.

        Raises:
            ValueError: the file is no readable picture.
        """
        try:
            return square_png(_crop(load_image(str(self.png))))
        except MediaError as error:
            raise ValueError(
                f"{error}; remove the folder of packages to fetch them again"
            ) from error


def check_packages(packages: Path) -> None:
    """Compare names and keywords with those that this dataset is made of.

    Raises:
        FileNotFoundError: `packages` has no clip art.
        ValueError: the content differs.
    """
    folder = packages / _FOLDER / "svg"
    files = sorted(folder.rglob("*.svg"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no SVG files; unpack Debian's openclipart-svg and openclipart-png there"
        )
    found = content_digest(files, folder)
    if found != _SHA256:
        raise ValueError(
            f"{folder} has other content than this dataset is made of: sha256 {found}, expected "
            f"{_SHA256}; take Debian 12's {' and '.join(PACKAGES)}"
        )


def read_clip_art(packages: Path) -> Iterator[ClipArt]:
    """The pictures that have a name of their own, by path.

    Maps, flags, patterns, plain shapes and icons of desktop themes are left out, as are
    huge pictures.

    Raises:
        FileNotFoundError: a picture is absent.
    """
    folder = packages / _FOLDER / "svg"
    described = {
        file.relative_to(folder): _read_description(file) for file in sorted(folder.rglob("*.svg"))
    }
    namesakes = Counter(title.casefold() for title, _ in described.values())
    for path, (title, keywords) in described.items():
        key = path.with_suffix("").as_posix()
        name = _clean(title)
        common = namesakes[title.casefold()] > _MAX_NAMESAKES or _OF_A_SERIES.search(title)
        if key.startswith(_ABSTRACT) or _FOREIGN in key or common:
            continue
        if not 1 <= len(name.split()) <= _MAX_WORDS:
            continue
        png = packages / _FOLDER / "png" / path.with_suffix(".png")
        if not png.exists():
            raise FileNotFoundError(f"{png} not found; unpack Debian's openclipart-png there")
        if _num_pixels(png) > _MAX_PIXELS:
            continue
        folders = [part.replace("_", " ") for part in path.parent.parts]
        yield ClipArt(key, name, tuple(_distinct(keywords) or folders), png)


def _crop(picture: Image.Image) -> Image.Image:
    """The picture without the white margin that many have."""
    return picture.crop(ImageOps.invert(picture).getbbox())


def _num_pixels(png: Path) -> int:
    """By its header, since Pillow warns of huge pictures when it opens them."""
    with png.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return width * height


def _read_description(file: Path) -> tuple[str, list[str]]:
    """Title and keywords of a picture; nothing outside the file is looked up."""
    from lxml import etree  # of the extra `documents`

    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    document = etree.parse(file, parser)
    title = " ".join((document.findtext(f".//{_DUBLIN_CORE}title") or "").split())
    return title, [element.text or "" for element in document.iter(f"{_RDF}li")]


def _clean(title: str) -> str:
    """The words of a title, without numbers and remarks."""
    words = _WORD.findall(_REMARK.sub(" ", title))
    return " ".join(word.lower() for word in words if len(word) > 1) if title.isascii() else ""


def _distinct(keywords: list[str]) -> list[str]:
    found = dict.fromkeys(" ".join(word.lower().replace("_", " ").split()) for word in keywords)
    return [word for word in found if _KEYWORD.fullmatch(word) and word not in _NO_KEYWORDS]
