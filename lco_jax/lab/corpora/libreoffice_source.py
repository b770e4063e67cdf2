"""LibreOffice's help in Indonesian, Vietnamese and Khmer, from Debian packages.

Every page has the same path in all languages, so an English title asks for a translated page.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lco_jax.lab.corpora.debian import content_digest

LANGUAGES = ("id", "vi", "km")
TEST_FOLDS, NUM_FOLDS = (0,), 5
"""A page is held out in all languages, or in none."""
FONTS = ("NotoSans-Regular", "NotoSans-Bold", "NotoSansKhmer-Regular", "NotoSansKhmer-Bold")

PACKAGES = (
    *(f"libreoffice-help-{language}=4:7.4.7-*" for language in ("en-us", *LANGUAGES)),
    "fonts-noto-core=20201225-*",
)
"""Of Debian 12. Rebuilds carry the same pages; their content is what is checked."""
_ENGLISH = "en-US"
_HELP = Path("usr/share/libreoffice/help")
_FONTS = Path("usr/share/fonts/truetype/noto")
_SHA256 = {
    "en-US": "c3facd77137dfddeff50740842104cdc173ce399bb9b22e273806ddf2b8bf964",
    "id": "ac1a210546f54315afb5a67560984ce14a9126fd8d1aee214192dd311e44bdd0",
    "vi": "e4a5bc824273de8bd1b93e3c0ad3cafbf8f4c9d11d5f8e956022bd6d69662e6f",
    "km": "c5431752e5e46abb2e84bc04efa29062fe1b8725ab737678bf3b6a758fa5b838",
    "fonts": "576f0c710af27bfa9af0a799e0d9cc41bb9552477abfc0866e6aa4615a15a212",
}
_MAX_BLOCK_CHARACTERS, _MAX_CHARACTERS = 320, 1000
"""Of a paragraph and of a page; more is never seen on the image."""
_MIN_CHARACTERS = 120
_MIN_TRANSLATED = 0.8
"""Share of a page's paragraphs that differ from the English ones; the others are left out."""
_KINDS = {"h1": "title", "h2": "heading", "h3": "heading"}
_BOXES = ("tip", "note", "warning")


@dataclass(frozen=True)
class Block:
    """A paragraph of a page."""

    kind: str
    """`title`, `heading`, `text`, `item` or `box`."""
    text: str


@dataclass(frozen=True)
class Page:
    """A translated page and the English title that asks for it."""

    id: str
    """Path within the help, e.g. `"scalc/01/04060106"`."""
    title: str
    """In English."""
    blocks: tuple[Block, ...]
    """The first of them is the translated title."""

    @property
    def is_held_out(self) -> bool:
        """Whether the page is for tests, in every language alike."""
        digest = hashlib.sha256(self.id.encode()).digest()
        return digest[0] % NUM_FOLDS in TEST_FOLDS


def check_packages(packages: Path, language: str) -> None:
    """Compare pages and fonts with those that this dataset is made of.

    Raises:
        FileNotFoundError: `packages` lacks a folder or font.
        ValueError: the content differs.
    """
    found = {name: _pages_digest(packages, name) for name in (_ENGLISH, language)}
    found["fonts"] = content_digest(font_files(packages), packages / _FONTS)
    wrong = {name: value for name, value in found.items() if value != _SHA256[name]}
    if wrong:
        raise ValueError(
            f"{packages} has other content than this dataset is made of: sha256 {wrong}, expected "
            f"{ {name: _SHA256[name] for name in wrong} }; take Debian 12's packages of "
            f"LibreOffice 7.4.7 and Noto 20201225, or remove the folder to fetch them again"
        )


def font_files(packages: Path) -> list[Path]:
    """The fonts that pages are set in: Latin and Khmer, regular and bold."""
    files = [packages / _FONTS / f"{name}.ttf" for name in FONTS]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing} not found; unpack Debian's fonts-noto-core there")
    return files


def _pages_digest(packages: Path, language: str) -> str:
    folder = packages / _HELP / language / "text"
    files = sorted(folder.rglob("*.html"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no pages; unpack Debian's libreoffice-help-{language.lower()} there"
        )
    return content_digest(files, folder)


def read_pages(packages: Path, language: str) -> Iterator[Page]:
    """The pages that are translated, by path; of several with one English title the first."""
    english, translated = (packages / _HELP / name / "text" for name in (_ENGLISH, language))
    seen: set[str] = set()
    for file in sorted(translated.rglob("*.html")):
        path = file.relative_to(translated)
        if not (english / path).exists():
            continue
        original, translation = _read_blocks(english / path), _read_blocks(file)
        same = {key for key in translation if translation[key] == original.get(key)}
        if len(translation) - len(same) < _MIN_TRANSLATED * len(translation):
            continue
        title = next((block.text for block in original.values() if block.kind == "title"), "")
        own = [block for key, block in translation.items() if key not in same]
        heading = next((block for block in translation.values() if block.kind == "title"), None)
        if heading is not None and heading not in own:  # a name that is the same in both
            own = [heading, *own]
        blocks = _cut(own)
        if sum(len(block.text) for block in blocks) < _MIN_CHARACTERS or blocks[0] != heading:
            continue
        if title and title.casefold() not in seen:
            seen.add(title.casefold())
            yield Page(path.with_suffix("").as_posix(), title, tuple(blocks))


def _read_blocks(file: Path) -> dict[str, Block]:
    """Titles and paragraphs by the id that all languages share, in the order of the page."""
    from lxml import html  # of the extra `documents`

    document = html.fromstring(file.read_bytes(), parser=html.HTMLParser(encoding="utf-8"))
    blocks: dict[str, Block] = {}
    for area in document.iterfind(".//div[@id='DisplayArea']"):
        for element in area.iter("h1", "h2", "h3", "p"):
            key, text = element.get("id"), " ".join(element.text_content().split())
            # Elements without an id repeat titles of other pages.
            if key and text and key not in blocks:
                blocks[key] = Block(
                    _KINDS.get(element.tag) or _kind(element.get("class", "")), text
                )
    return blocks


def _kind(classes: str) -> str:
    if "listitem" in classes:
        return "item"
    return "box" if any(box in classes for box in _BOXES) else "text"


def _cut(blocks: list[Block]) -> list[Block]:
    """The blocks up to a very long one, or to as many characters as may be seen."""
    kept, total = [], 0
    for block in blocks:
        total += len(block.text)
        if len(block.text) > _MAX_BLOCK_CHARACTERS or total > _MAX_CHARACTERS:
            break
        kept.append(block)
    return kept
