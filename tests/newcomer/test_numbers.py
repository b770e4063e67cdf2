"""Every figure of README and docs comes from a file that the page names: one that a command has
written, or the code that holds the setting. `numerals.py` says what a figure is.
"""

import re
from decimal import Decimal

import pytest

from tests.newcomer.numerals import MADE, ROOT, Figure, figures, numbers_of, records

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_traced(page):
    text = page.read_text(encoding="utf-8")
    if made := MADE.search(text[:500]):
        assert _is_program(made[1].split()), f"no such command: {made[1]}"
        return
    untraced = [
        f"line {figure.line}: {figure.text} (of {', '.join(figure.sources) or 'no source'})"
        for figure in figures(text)
        if not figure.is_traced()
    ]
    assert not untraced, "not in the sources that the page names:\n" + "\n".join(untraced)


def _is_program(words):
    file = words[2].replace(".", "/") + ".py" if words[:2] == ["python", "-m"] else words[1]
    return words[0] == "python" and (ROOT / file).is_file()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs/results").glob("*.json")), ids=lambda f: f.name
)
def test_results_say_which_command_wrote_them(file):
    for record in records(file.read_text()):
        assert _is_program(record["command"].split())
        assert re.fullmatch(r"[0-9a-f]{7,}", record["revision"]), (
            "of a commit, not of changed files"
        )


PAGE = """# 1. Figures of 3 kinds

Text of Python 3.11 and `code 5.5`; step 12 of 8. <!-- figures: A.json -->
In 1,056 triplets .541 [-.026, 95.0 %], 1.2 GB or 12 s.

```bash
run 77   # takes 13 minutes
```
<!-- figures: B.json, C.py
-->
| 56 x 56 pixels |
"""


def test_what_a_figure_is():
    found = [(figure.text, figure.sources) for figure in figures(PAGE)]
    of_a = ["1,056", ".541", "-.026", "95.0 %", "1.2 GB", "12 s", "13 minutes"]
    assert found == [
        *((text, ("A.json",)) for text in of_a),
        *((text, ("B.json", "C.py")) for text in ("56", "56 pixels")),
    ]


@pytest.mark.parametrize(
    ("value", "unit", "number", "there"),
    (
        (".54", "", 0.5449, True),
        (".54", "", 0.5451, False),
        ("-.03", "", -0.026, True),
        (".03", "", -0.026, False),
        ("54", "%", 0.541, True),
        ("54", "", 0.541, False),
        ("8.8", "GB", 8_780_000_000, True),
        ("2", "minute", 131, True),
        ("64", "", 64, True),
        ("64", "", 64.6, False),
    ),
)
def test_precision_and_units(value, unit, number, there):
    figure = Figure(value, Decimal(value), unit, 1, ())
    assert figure.is_in(frozenset([number])) is there


def test_numbers_of_sources(tmp_path):
    assert 1056 not in numbers_of("lco_jax/config/topology.py")
    code = numbers_of("tests/newcomer/test_numbers.py")
    assert 0.5449 in code and int("77") not in code, "numbers of the code, not of its texts"
    with pytest.raises(ValueError, match="a source is JSON, Python, TOML"):
        numbers_of("LICENSE")
    with pytest.raises(OSError):
        numbers_of("docs/nothing.json")
