"""The pages of reports: filled from the templates beside this file, written whole or not at all."""

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
    return environment.get_template(template).render(**values)


def write_whole(file: epath.Path | Path, content: str) -> None:
    """Write a file that others never see half written, and its folder."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, content)
