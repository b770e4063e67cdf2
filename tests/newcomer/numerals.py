"""The figures of a page, and the files that it says they come from.

A page names its sources in comments, `<!-- figures: docs/results/images.json, setup.toml -->`, each
of which holds until the next one. A source is JSON that a command wrote (`FILE.json#key` is what it
has under that key), a Markdown page that says "Made by", or Python or TOML that holds settings.

A figure is every number outside code (remarks in blocks of code are no code), but for what
`_NO_FIGURES` and `MAX_COUNT` leave out.
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = re.compile(r"[Mm]ade by\s+`([^`]+)`")
"""How a page begins that a command has written whole."""
MAX_COUNT = 10
"""Whole numbers up to it, without a unit, are counts that a reader can check by counting."""
_MINUS = "\N{MINUS SIGN}-"
_SOURCES = re.compile(r"<!--\s*figures:\s*(.*?)\s*-->", re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_REMARK = re.compile(r"(?:^|\s)# (.*)$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_NO_TEXT = re.compile(r"<!--.*?-->|\]\([^)\s]*\)|https?://\S+", re.DOTALL)
_UNITS = r"x(?! \d)|[kMGT]i?B|billion|million|ms|s|seconds?|minutes?|hours?|nats?|pixels?|k?Hz"
_NUMBER = re.compile(
    rf"(?<![\w.,@:/#^-])(?P<sign>[+{_MINUS}]?)(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)"
    rf"(?:\s?(?P<unit>%|(?:{_UNITS})\b))?(?![\w@]|[-:/.]\w)"
)
_PRODUCTS = (
    *("Apache", "arXiv", "CC BY-SA", "CUDA", "JAX", "Llama", "mteb", "NeurIPS", "Python"),
    *("sentence-transformers", "transformers", "version", "Voyage Multimodal"),
)
"""A number behind one of these is its version, its year or a part of its name."""
_PARTS = ("Eq.", "Fig.", "section", "step", "Table", "Theorem", "Proposition")
_NO_FIGURES = (
    re.compile(rf"\b(?:{'|'.join(map(re.escape, _PRODUCTS))})[ -]\d[\d.]*", re.IGNORECASE),
    re.compile(rf"\b(?:{'|'.join(map(re.escape, _PARTS))})s? \d+(?:(?:,| and| to) \d+)*(?![\d.x])"),
    re.compile(r"^(?:#+ )?\s*\d+\. ", re.MULTILINE),  # headings and lists
    re.compile(
        r"\b95 %(?=[^.\n]{0,12}\b(?:bootstrap|intervals?|t\)))"
    ),  # the level of all intervals
    re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
)
_SCALES = {
    "%": (100,),
    "kB": (1e-3,),
    "MB": (1e-6,),
    "GB": (1e-9, 1e-3),
    "TB": (1e-12, 1e-3),
    "MiB": (2**-20,),
    "GiB": (2**-30, 2**-10),
    "billion": (1e-9,),
    "million": (1e-6,),
    "ms": (1e3,),
    "minute": (1 / 60,),
    "hour": (1 / 3600, 1 / 60),
    "kHz": (1e-3,),
}
"""What a number in a file is multiplied with to be one in the unit of a page."""


@dataclass(frozen=True)
class Figure:
    """A number of a page."""

    text: str
    """As printed, with its unit."""
    value: Decimal
    unit: str
    line: int
    sources: tuple[str, ...]

    def is_in(self, numbers: frozenset[float]) -> bool:
        """Whether one of the numbers is this one at the precision to which it is printed."""
        digits = max(0, -self.value.as_tuple().exponent)
        tolerance = 0.5 * 10**-digits * (1 + 1e-9)
        wanted, scales = float(self.value), (1, *_SCALES.get(self.unit, ()))
        printed = (number * scale for number in numbers for scale in scales)
        return any(abs(number - wanted) <= tolerance for number in printed)

    def is_traced(self) -> bool:
        """Whether one of its sources has it."""
        return any(self.is_in(numbers_of(source)) for source in self.sources)


def figures(page: str) -> Iterator[Figure]:
    """Of the text of a page, in order."""
    text = _FENCED.sub(_remarks, page)
    text = _INLINE.sub(_spaces, text)
    named = [(found.end(), _names(found[1])) for found in _SOURCES.finditer(text)]
    for pattern in (_NO_TEXT, *_NO_FIGURES):
        text = pattern.sub(_spaces, text)
    for found in _NUMBER.finditer(text):
        unit = found["unit"] or ""
        value = Decimal(found["digits"].replace(",", ""))
        if not unit and "." not in found["digits"] and value <= MAX_COUNT:
            continue
        before = [sources for end, sources in named if end <= found.start()]
        yield Figure(
            text=found[0].strip(" ,"),
            value=-value if found["sign"] in tuple(_MINUS) else value,
            unit=unit if unit in _SCALES else unit.removesuffix("s"),
            line=text.count("\n", 0, found.start()) + 1,
            sources=before[-1] if before else (),
        )


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,\s]+", listed) if name)


def _spaces(found: re.Match) -> str:
    """As many blanks, so that lines and places stay."""
    return re.sub(r"[^\n]", " ", found[0])


def _remarks(found: re.Match) -> str:
    """A code block of which only remarks stay."""
    return "\n".join(
        " " * (len(line) - len(remark[1])) + remark[1] if (remark := _REMARK.search(line)) else ""
        for line in found[0].split("\n")
    )


@cache
def numbers_of(source: str) -> frozenset[float]:
    """All numbers of a source.

    Raises:
        OSError: there is no such file.
        ValueError: it is of no kind that may be a source, or has nothing under the key.
    """
    name, _, key = source.partition("#")
    text = (ROOT / name).read_text(encoding="utf-8")
    match Path(name).suffix:
        case ".json" | ".jsonl":
            parts = records(text)
            if key:
                parts = [part for record in parts for part in _under(record, key)]
            found = {number for part in parts for number in _of_values(part)}
        case ".toml":
            found = set(_of_values(tomllib.loads(text)))
        case ".py":
            found = set(_of_code(ast.parse(text)))
        case ".md" if MADE.search(text[:2000]):
            found = set(_of_text(text))
        case _:
            found = set()
    if not found:
        raise ValueError(
            f"{source} has no numbers; a source is JSON, Python, TOML, or Markdown with "
            "'Made by `COMMAND`' at the top"
        )
    return frozenset(found)


def records(text: str) -> list:
    """Of a JSON file, or of one with a line a record."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def _under(part, key: str) -> list:
    """What stands under a key at any depth, and the objects of which it is a value."""
    if isinstance(part, list):
        return [found for value in part for found in _under(value, key)]
    if not isinstance(part, dict):
        return []
    if key in part:
        return [part[key]]
    if any(value == key for value in part.values()):
        return [part]
    return [found for value in part.values() for found in _under(value, key)]


def _of_values(part) -> Iterator[float]:
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from _of_values(value)
    elif isinstance(part, str):
        yield from _of_text(part)
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield float(part)


def _of_code(tree: ast.AST) -> Iterator[float]:
    """Numbers of the code, not of docstrings and comments; sums and products are worked out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp):
            try:
                value = eval(compile(ast.Expression(node), "source", "eval"), {"__builtins__": {}})
            except Exception:
                continue  # names in it
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield float(value)


def _of_text(text: str) -> Iterator[float]:
    for found in re.finditer(rf"(?<![\w.])([{_MINUS}]?)(\d[\d,]*(?:\.\d+)?|\.\d+)", text):
        value = float(found[2].replace(",", ""))
        yield -value if found[1] in tuple(_MINUS) else value
