"""The pages of reports: filled from the templates beside this file, written whole or not at all."""

import re
from pathlib import Path
from typing import Any

from etils import epath
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from lco_jax.runtime.disks import replace_text, writing


def render(template: str, *, room: str = "report", **values: Any) -> str:
    """The template `lco_jax/{room}/{template}`, filled; text is escaped, and a missing value is an
    error. It may include those of `lco_jax/report/`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("lco_jax", folder) for folder in (room, "report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return _TABLE.sub(_labelled, environment.get_template(template).render(**values))


_TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
_HEADING = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)


def _labelled(table: re.Match) -> str:
    """A table whose cells have the words of their column: on a narrow screen the style sheet sets
    the cells of a row below each other, each behind its words.
    """
    head, ends, body = table[0].partition("</thead>")
    labels = [re.sub(r"<[^>]+>", "", words).strip() for words in _HEADING.findall(head)]

    def labelled(row: re.Match) -> str:
        left = iter(labels)
        return re.sub(r"<td\b", lambda _: f'<td data-label="{next(left, "")}"', row[0])

    return head + ends + _ROW.sub(labelled, body)


def write_whole(file: epath.Path | Path, content: str) -> None:
    """Write a file that others never see half written, and its folder."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, content)
