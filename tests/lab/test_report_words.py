"""What the report of a job of stages says its conditions are."""

import pytest

from lco_jax.lab.conditions import CONDITIONS, EXPLAINED, Control
from lco_jax.lab.report import _explained


def test_every_condition_is_explained():
    assert list(EXPLAINED) == list(CONDITIONS)


@pytest.mark.parametrize("present", (["after", "before"], ["after", "read_texts", "whole"]))
def test_a_page_explains_what_it_shows_and_nothing_else(present):
    shown = {Control(one, way).title: {} for one in present for way in ("raw", "whitened")}
    explained = _explained({"text->text": {}, "image->text": shown})
    assert explained == {CONDITIONS[one]: EXPLAINED[one] for one in CONDITIONS if one in present}
