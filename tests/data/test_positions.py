"""Layouts and positions against transformers and against their own promises."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from lco_jax.data.encode.positions import Grid, mrope_ids
from lco_jax.data.pack.patch_layout import WINDOW_ROW, PatchBudget, choose_frame_row
from lco_jax.models.config import VisionConfig, from_hf
from tests.patches import lay_out, place

CONFIG = VisionConfig(
    num_layers=4,
    hidden_size=32,
    intermediate_size=24,
    num_heads=4,
    out_size=32,
    full_layers=(1, 3),
    num_channels=3,
    patch_px=14,
    window_px=112,
    merge_size=2,
    frames_per_patch=2,
    ids_per_second=2.0,
)
FRAME_ROWS = (128, 256, 512, 1024, 2048, 4096)
START, END, IMAGE, VIDEO, AUDIO, AUDIO_START, AUDIO_END, TEXT = (*range(500, 507), 7)


def random_grids(seed, count=12, longest=40):
    rng = np.random.default_rng(seed)
    sides = 2 * rng.integers(1, longest // 2 + 1, (count, 2))
    frames = np.where(rng.random(count) < 0.3, rng.integers(2, 5, count), 1)
    return [Grid(int(t), int(h), int(w)) for t, (h, w) in zip(frames, sides, strict=True)]


# ----------------------------------------------------------------------------------- patches


@pytest.mark.parametrize("seed", range(8))
def test_layout_is_a_placement_of_all_patches(seed):
    grids = random_grids(seed)
    frame_row = choose_frame_row(grids, FRAME_ROWS, CONFIG)
    layout = lay_out(grids, CONFIG, frame_row)
    num_patches = sum(grid.frames * grid.rows * grid.columns for grid in grids)
    assert layout.windows.shape[1] == WINDOW_ROW and layout.frames.shape[1] == frame_row
    assert layout.windows.size == layout.frames.size == len(layout.coordinates)
    assert len(np.unique(layout.units)) == len(layout.units) == num_patches // 4

    patches = np.arange(1, num_patches + 1, dtype=np.float32)[:, None]
    placed = place(layout, patches, CONFIG)
    for segments in (layout.windows, layout.frames):
        np.testing.assert_array_equal(segments.ravel() > 0, placed[:, 0] > 0)
    np.testing.assert_array_equal(placed.reshape(-1, 4)[layout.units].ravel(), patches.ravel())


@pytest.mark.parametrize("seed", range(8))
def test_segments_and_coordinates_are_those_of_transformers(seed):
    grids = random_grids(seed)
    layout = lay_out(grids, CONFIG, choose_frame_row(grids, FRAME_ROWS, CONFIG))
    sizes = torch.tensor([grid[:3] for grid in grids])
    order, ends = get_vision_window_index(sizes, 2, 112, 14)
    expected = np.zeros(len(order), int)
    lengths = np.diff(ends.numpy()) // 4
    expected[order.numpy()] = np.repeat(np.arange(len(lengths)), lengths)
    own = layout.windows.reshape(-1, 4)[layout.units]
    assert same_partition(own[:, 0], expected) and (own == own[:, :1]).all()

    frames = [grid.rows * grid.columns // 4 for grid in grids for _ in range(grid.frames)]
    own = layout.frames.reshape(-1, 4)[layout.units]
    assert same_partition(own[:, 0], np.repeat(np.arange(len(frames)), frames))

    coordinates = get_vision_position_ids(sizes, 2).numpy()
    own = layout.coordinates.reshape(-1, 4, 2)[layout.units].reshape(-1, 2)
    np.testing.assert_array_equal(own, coordinates)

    for segments in (layout.windows, layout.frames):
        real = segments[segments > 0]
        rows = np.nonzero(segments)[0]
        assert len(np.unique(real)) == len({*zip(real.tolist(), rows.tolist(), strict=True)})


def same_partition(first, second):
    pairs = {*zip(first.tolist(), second.tolist(), strict=True)}
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


@pytest.mark.parametrize("shape", [(6, 6), (2, 2), (10, 10), (12, 16), (74, 52)])
def test_rows_are_well_filled(shape):
    """Many equal images are the worst case: their windows find no others for their gaps."""
    grids = [Grid(1, *shape)] * (40_000 // (shape[0] * shape[1]))
    layout = lay_out(grids, CONFIG, choose_frame_row(grids, (4096,), CONFIG))
    assert np.count_nonzero(layout.windows) / layout.windows.size > 0.8


def test_a_mixture_of_sizes_fills_nine_tenths():
    grids = random_grids(0, count=200, longest=64)
    layout = lay_out(grids, CONFIG, 4096)
    assert np.count_nonzero(layout.windows) / layout.windows.size > 0.9


def test_frames_that_flow_lie_in_one_piece_each():
    """So blocks of queries find the keys of their frames near them."""
    sizes = 2 * np.random.default_rng(0).integers(2, 17, (20, 2))
    grids = [Grid(1, *size) for size in sizes.tolist()]
    spread = []
    for flows in (False, True):
        budget = PatchBudget(CONFIG, 8192, flows=flows)
        assert all(budget.add([grid], 1) is not None for grid in grids)
        layout = budget.layout(1)
        frames = layout.frames[0]
        assert np.bincount(frames)[1:].tolist() == [grid.rows * grid.columns for grid in grids]
        spread.append(sum(np.ptp(np.flatnonzero(frames == n)) for n in range(1, len(grids) + 1)))
    patches = sum(grid.rows * grid.columns for grid in grids)
    assert spread[1] < min(spread[0], patches + 3 * 128 * len(grids))
    assert np.count_nonzero(frames) > 0.95 * np.flatnonzero(frames)[-1]


def test_an_empty_group_has_a_budget():
    layout = lay_out([], CONFIG, 256, 2)
    assert layout.frames.shape == (2, 256) and layout.windows.shape == (4, 128)
    assert not layout.frames.any() and not layout.windows.any() and not len(layout.units)
    assert place(layout, np.zeros((0, 5)), CONFIG).shape == (512, 5)


def test_frame_row_is_the_shortest_that_holds_every_window():
    assert choose_frame_row([], FRAME_ROWS, CONFIG) == 128
    assert choose_frame_row([Grid(1, 8, 16)], FRAME_ROWS, CONFIG) == 128
    assert choose_frame_row([Grid(1, 8, 18)], FRAME_ROWS, CONFIG) == 256
    # 252 patches in windows of 48, of which a window row of 128 holds two.
    assert choose_frame_row([Grid(1, 6, 42)], FRAME_ROWS, CONFIG) == 512
    with pytest.raises(ValueError, match="80 x 60 patches does not fit into rows of 4096"):
        choose_frame_row([Grid(1, 2, 2), Grid(1, 80, 60)], FRAME_ROWS, CONFIG)


def test_what_does_not_fit_is_refused():
    budget = PatchBudget(CONFIG, 128)
    assert budget.add([Grid(1, 2, 2), Grid(1, 12, 20)]) is None and budget.num_rows == 0
    with pytest.raises(ValueError, match="12 x 20 patches does not fit into rows of 128"):
        choose_frame_row([Grid(1, 12, 20)], (128,), CONFIG)
    with pytest.raises(ValueError, match=r"3 frames need 3 rows of 256 patches .* has 2"):
        lay_out([Grid(3, 12, 20)], CONFIG, 256, 2)
    wide = dataclasses.replace(CONFIG, window_px=224)
    with pytest.raises(ValueError, match=r"8 x 8 merge units do not .* may be at most 140"):
        lay_out([Grid(1, 2, 2)], wide, 512)
    with pytest.raises(ValueError, match="frame_row=200 must be a multiple of 128"):
        lay_out([Grid(1, 2, 2)], CONFIG, 200)


# ------------------------------------------------------------------------------------ tokens


def random_parts(seed):
    """Runs of text around media, as a processor writes them: media never touch each other."""
    rng = np.random.default_rng(seed)
    parts = []
    for grid in random_grids(seed, count=6, longest=12):
        seconds = float(rng.choice([0.08, 1 / 3, 0.5, 1.0, 1.7, 2.0]))
        parts += [int(rng.integers(2, 9)), grid._replace(seconds_per_frame=seconds)]
    return [*parts, 4]


def tokens_of(parts):
    """One row of token ids, with the start and end token of each medium in the runs of text."""
    tokens = []
    for index, part in enumerate(parts):
        if isinstance(part, Grid):
            kind = VIDEO if part.frames > 1 else IMAGE
            tokens += [kind] * (part.frames * part.rows * part.columns // 4)
        else:
            run = [TEXT] * part
            run[0] = END if index else TEXT
            run[-1] = START if index + 1 < len(parts) else TEXT
            tokens += run
    return torch.tensor([tokens])


def media_of(parts):
    grids = [part for part in parts if isinstance(part, Grid)]
    images = [grid[:3] for grid in grids if grid.frames == 1]
    videos = [grid[:3] for grid in grids if grid.frames > 1]
    seconds = [grid.seconds_per_frame for grid in grids if grid.frames > 1]
    return (
        torch.tensor(images).reshape(-1, 3),
        torch.tensor(videos).reshape(-1, 3),
        torch.tensor(seconds),
    )


@pytest.fixture(scope="module")
def vl():
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 512}
    config = Qwen2_5_VLConfig(
        text_config={**text, "num_key_value_heads": 1, "intermediate_size": 8},
        vision_config={"depth": 0, "hidden_size": 16, "num_heads": 1, "tokens_per_second": 2},
    )
    return Qwen2_5_VLModel(config)


@pytest.mark.parametrize("seed", range(6))
def test_vl_positions_are_those_of_transformers(vl, seed):
    parts = random_parts(seed)
    tokens = tokens_of(parts)
    images, videos, seconds = media_of(parts)
    kinds = (tokens == IMAGE).int() + 2 * (tokens == VIDEO).int()
    expected, _ = vl.get_rope_index(tokens, kinds, images, videos, seconds)
    found = mrope_ids(parts, CONFIG, after_video="extent")
    np.testing.assert_array_equal(found, expected[:, 0].numpy().T)
    # Without videos both rules agree.
    still = [part if isinstance(part, int) else part._replace(frames=1) for part in parts]
    np.testing.assert_array_equal(
        mrope_ids(still, CONFIG), mrope_ids(still, CONFIG, after_video="extent")
    )


def test_text_goes_on_behind_the_last_frame():
    video = Grid(4, 4, 6, seconds_per_frame=1.5)
    found = mrope_ids([2, video, 2], CONFIG)
    assert found[:2].tolist() == [[0] * 3, [1] * 3]
    assert found[2:8].tolist() == [[2, 2 + h, 2 + w] for h in (0, 1) for w in (0, 1, 2)]
    assert found[2::6, 0].tolist() == [2, 5, 8, 11, 12]
    assert found[-2:].tolist() == [[12] * 3, [13] * 3]
    assert mrope_ids([2, video, 2], CONFIG, after_video="extent")[-1].tolist() == [6] * 3


@pytest.fixture(scope="module")
def omni():
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 512}
    mrope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    sizes = {"num_key_value_heads": 1, "intermediate_size": 8, "rope_parameters": mrope}
    audio = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 1, "output_dim": 8}
    config = Qwen2_5OmniThinkerConfig(
        text_config={**text, **sizes},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "num_heads": 1,
            "out_hidden_size": 8,
            "fullatt_block_indexes": [0],
            "intermediate_size": 8,
        },
        audio_config={**audio, "encoder_ffn_dim": 8},
        vision_start_token_id=START,
        vision_end_token_id=END,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=AUDIO,
        audio_start_token_id=AUDIO_START,
        audio_end_token_id=AUDIO_END,
    )
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


@pytest.mark.parametrize("seed", range(6))
def test_omni_positions_are_those_of_transformers(omni, seed):
    config = from_hf(omni.config.to_dict()).vision
    assert config.ids_per_second == 25
    parts = random_parts(seed)
    images, videos, seconds = media_of(parts)
    # 51 mel frames are 13 tokens, which count like text.
    audio = torch.tensor([[AUDIO_START, *[AUDIO] * 13, AUDIO_END, TEXT]])
    expected, _ = omni.get_rope_index(
        torch.cat([tokens_of(parts), audio], dim=1),
        images,
        videos,
        audio_seqlens=torch.tensor([51]),
        second_per_grids=seconds,
    )
    found = mrope_ids([*parts, audio.shape[1]], config)
    np.testing.assert_array_equal(found, expected[:, 0].numpy().T)
