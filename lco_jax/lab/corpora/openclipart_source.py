"""Images of Open Clip Art with names and keywords, from Debian packages.

Titles and keywords stand in the SVG files, pixels are taken from the PNG files of the same names.
"""

import importlib.util
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import load_image
from lco_jax.lab.corpora.debian import content_digest
from lco_jax.lab.corpora.square import square_png

PACKAGES = ("openclipart-png=1:0.18+dfsg-19", "openclipart-svg=1:0.18+dfsg-19")

_FOLDER = Path("usr/share/openclipart")
_SHA256 = "038de1b537c36c698afab7e88327d6d8e77185506a203fe70d6bd3a00150b9c2"
"""Of all SVG files, and of all PNG files."""
_ABSTRACT = (
    "computer/buttons",
    "geography",
    "shapes",
    "signs_and_symbols/flags",
    "signs_and_symbols/led",
    "special",
)
"""Folders of maps, flags and series, which words do not tell apart at this size."""
_FOREIGN = "Architetto Francesco Rollandin"
"""The contributor of 421 images whose titles are Italian."""
_MAX_NAMESAKES = 3
"""A name of more images says where they come from, not what they show."""
_MAX_WORDS = 6
_MAX_PIXELS = 2**24
"""A dozen files are larger, up to 30,000 pixels high."""
_OF_A_SERIES = re.compile(r"clipart by|part of|theme|icon ?set|svg", re.IGNORECASE)
_REMARK = re.compile(r"\(.*?\)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Za-z][a-z']*")
"""Also of names in camel case; capitals in a row are one word."""
_KEYWORD = re.compile(r"[a-z]{3,}( [a-z]{3,})?")
_NO_KEYWORDS = {"hash", "unsorted", "icons", "icon", "appicon", "mimeicon", "menu"}
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_PNG = b"\x89PNG\r\n\x1a\n"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class ClipArt:
    """An image and what it is called."""

    id: str
    """Path without suffix, e.g. `"animals/mammals/contour_giraffe"`."""
    name: str
    """In lower case; some are in other languages than English."""
    keywords: tuple[str, ...]
    png: Path

    def image(self) -> bytes:
        """As PNG, RGB on white, at the size of the emoji.

        Raises:
            ValueError: the file is no readable image.
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
    folder = packages / _FOLDER
    files = []
    for kind in ("svg", "png"):
        files += (found := sorted((folder / kind).rglob(f"*.{kind}")))
        if not found:
            raise FileNotFoundError(
                f"{folder / kind} has no {kind.upper()} files; unpack Debian's openclipart-{kind} "
                f"in {packages}"
            )
    found = content_digest(files, folder)
    if found != _SHA256:
        raise ValueError(
            f"{folder} has other content than this dataset is made of: sha256 {found}, expected "
            f"{_SHA256}; take Debian 12's {' and '.join(PACKAGES)} (remove {packages} if it was "
            "downloaded here)"
        )


def read_clip_art(packages: Path, held_out: Collection[str] = ()) -> Iterator[ClipArt]:
    """The images whose name few others have, by path.

    Maps, flags, patterns, plain shapes and icons of desktop themes are left out, as are
    huge images.

    Args:
        held_out: names, in lower case, that no image may have.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: a file is no PNG.
    """
    folder = packages / _FOLDER / "svg"
    described = {
        file.relative_to(folder): _read_description(file) for file in sorted(folder.rglob("*.svg"))
    }
    names = {path: _clean(found.title) for path, found in described.items()}
    namesakes = Counter(names.values())
    for path, (title, creator, keywords) in described.items():
        key, name = path.with_suffix("").as_posix(), names[path]
        if key.startswith(_ABSTRACT) or creator == _FOREIGN or _OF_A_SERIES.search(title):
            continue
        if namesakes[name] > _MAX_NAMESAKES or name in held_out:
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


def _crop(image: Image.Image) -> Image.Image:
    """The image without the white margin that many have."""
    return image.crop(ImageOps.invert(image).getbbox())


def _num_pixels(png: Path) -> int:
    """By its header, since Pillow warns of huge images when it opens them."""
    with png.open("rb") as file:
        header = file.read(24)
    if len(header) < 24 or not header.startswith(_PNG):
        raise ValueError(f"{png} is no PNG file; remove the folder of packages to fetch them again")
    width, height = struct.unpack(">II", header[16:])
    return width * height


class _Description(NamedTuple):
    title: str
    creator: str
    keywords: list[str]


def require_lxml() -> None:
    """Fail before anything is downloaded.

    Raises:
        ModuleNotFoundError: lxml, of the extra `documents`, is not installed.
    """
    if importlib.util.find_spec("lxml") is None:
        raise ModuleNotFoundError(
            "clip art is described in SVG files, which lxml reads: pip install -e '.[documents]'"
        )


def _read_description(file: Path) -> _Description:
    """What an SVG file says about itself; nothing outside the file is looked up."""
    from lxml import etree  # of the extra `documents`

    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    document = etree.parse(file, parser)
    # The title of the work comes before those of its makers.
    title, creator = (
        " ".join((document.findtext(f".//{path}") or "").split())
        for path in (f"{_DUBLIN_CORE}title", f"{_DUBLIN_CORE}creator//{_DUBLIN_CORE}title")
    )
    return _Description(title, creator, [item.text or "" for item in document.iter(f"{_RDF}li")])


def _clean(title: str) -> str:
    """The words of a title, without numbers and remarks."""
    words = _WORD.findall(_REMARK.sub(" ", title))
    return " ".join(word.lower() for word in words if len(word) > 1) if title.isascii() else ""


def _distinct(keywords: list[str]) -> list[str]:
    found = dict.fromkeys(" ".join(word.lower().replace("_", " ").split()) for word in keywords)
    return [word for word in found if _KEYWORD.fullmatch(word) and word not in _NO_KEYWORDS]
