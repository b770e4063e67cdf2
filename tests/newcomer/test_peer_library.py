"""Comparisons with representax: what they say where it is absent, and what is handed to it."""

import importlib.util
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import images, omni_step
from benchmarks.image_prompts import ImagePrompts
from benchmarks.peer_library import require_representax, static_size
from tests import tiny
from tests.newcomer.numerals import ROOT
from tests.tokenizers import MEDIA_IDS


@pytest.mark.parametrize("absent", (("representax", "equinox"), ("equinox",)))
@pytest.mark.parametrize(
    "run",
    (
        require_representax,
        lambda: images.main(images.Arguments(sides=("representax",))),
        lambda: omni_step.main(omni_step.Arguments()),
    ),
    ids=("check", "images", "omni_step"),
)
def test_who_lacks_it_is_told_how_to_install_it(monkeypatch, absent, run):
    find = importlib.util.find_spec
    found = find("numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found)
    with pytest.raises(ModuleNotFoundError, match=" nor ".join(absent)) as caught:
        run()
    file = ROOT / re.search(r"pip install -r ([\w.-]+)", str(caught.value))[1]
    assert re.search(r"^representax==", file.read_text(), re.MULTILINE)


@given(st.integers(1, 100_000))
def test_static_sizes_hold_and_waste_little(count):
    size = static_size(count)
    assert count <= size < count + max(8, count / 8)
    assert size % 8 == 0
    assert static_size(size) == size


def test_static_sizes_are_few():
    assert len({static_size(count) for count in range(1024, 2048)}) == 9


def test_prompts_of_images_are_padded_on_the_left_largest_first(tmp_path):
    tiny.write(tmp_path, "qwen2_5_vl", num_layers=1)
    sizes = ((60, 60), (120, 90), (56, 140))
    (first, features), (second, _) = ImagePrompts(tmp_path).batches(
        [_encoded(size) for size in sizes], batch_size=2
    )
    assert [first.tolist(), second.tolist()] == [[1, 2], [0]]
    grids, ids, mask = (
        features[name] for name in ("image_grid_thw", "input_ids", "attention_mask")
    )
    np.testing.assert_array_equal((ids == MEDIA_IDS["image"]).sum(1), grids.prod(1) // 4)
    np.testing.assert_array_equal(features["mm_token_type_ids"], ids == MEDIA_IDS["image"])
    assert len(features["pixel_values"]) == grids.prod(1).sum()
    assert mask[:, -1].all()
    assert (np.diff(mask, axis=1) >= 0).all()
    whole = mask.sum(1) - grids.prod(1) // 4
    assert whole[0] == whole[1], "the same text around both"


def _encoded(size):
    content = io.BytesIO()
    Image.new("RGB", size, "teal").save(content, "PNG")
    return content.getvalue()
