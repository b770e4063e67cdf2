"""Models that read the times of frames against transformers: pixels, tokens, positions, steps."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lco_jax.config import MediaConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.config import VideoConfig
from lco_jax.data.media.video import sample_indices
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.models.config import read_config
from tests import hf_items, tiny
from tests.data.media_files import encode, noise, random_image, video_file
from tests.parity import gradients
from tests.patches import pixels_of

SIZES = [(80, 61), (210, 33), (57, 300), (500, 90)]
MEDIA = MediaConfig(
    image_min_pixels=32 * 32,
    image_max_pixels=12 * 32 * 32,
    video_min_pixels=4 * 32 * 32,
    video_max_pixels=8 * 32 * 32,
)
CLIPS = [(9, 4), (5, 2), (7, 1)]
"""Frames, and frames a second."""


def png(index):
    return encode(random_image(index, SIZES[index]), "PNG")


def clip(frames, fps):
    return video_file("mp4", noise(frames, (64, 48)), fps, size=(64, 48))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl", tied=False, num_layers=3)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return Processor(checkpoint.folder, read_config(checkpoint.folder), media=MEDIA)


def their_processor(folder):
    """Without its processor of videos, which needs torchvision."""
    found = object.__new__(Qwen3VLProcessor)
    found.tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("image_pad", "video_pad", "vision_start", "vision_end"):
        setattr(found, f"{name.removesuffix('_pad')}_token", f"<|{name}|>")
    bounds = {"shortest_edge": MEDIA.image_min_pixels, "longest_edge": MEDIA.image_max_pixels}
    found.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder, size=bounds)
    found.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    return found


def their_tokens(processor, turn, images, videos):
    """The tokens of a turn in which each medium is one; videos as grid, rate and frame numbers."""
    for index in range(len(images.get("image_grid_thw", ()))):
        run = processor.replace_image_token(images, index).replace("image", "IMAGE")
        turn = turn.replace("<|image_pad|>", run, 1)
    metadata = [SimpleNamespace(fps=fps, frames_indices=list(kept)) for _, fps, kept in videos]
    given = {"video_grid_thw": [grid for grid, *_ in videos], "video_metadata": metadata}
    for index in range(len(videos)):
        run = processor.replace_video_token(given, index).replace("video_pad", "VIDEO_pad")
        turn = turn.replace("<|video_pad|>", run, 1)
    turn = turn.replace("IMAGE", "image").replace("VIDEO", "video")
    return processor.tokenizer(turn, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("text", "num_images", "clips"),
    [("a fox", 0, CLIPS[:1]), ("", 2, CLIPS[1:]), ("which", 4, ()), ("", 0, ((1, 5),))],
)
def test_tokens_pixels_and_positions(checkpoint, processor, text, num_images, clips):
    images = tuple(png(index) for index in range(num_images))
    item = Item(text, images=images, videos=tuple(clip(*each) for each in clips))
    (found,) = processor.encode([item])
    theirs = their_processor(checkpoint.folder)
    read = {}
    if images:
        opened = [Image.open(io.BytesIO(content)) for content in images]
        read = theirs.image_processor(images=opened, return_tensors="pt")
        pixels = [pixels_of(medium.content, 16) for medium in found.visuals[:num_images]]
        np.testing.assert_array_equal(np.concatenate(pixels), read["pixel_values"].numpy())
    config = VideoConfig(fps=MEDIA.video_fps, max_frames=MEDIA.video_max_frames)
    grids = [medium.content.grid for medium in found.visuals]
    videos = [
        (torch.tensor(grid[:3]), fps, sample_indices(frames, fps, config))
        for grid, (frames, fps) in zip(grids[num_images:], clips, strict=True)
    ]
    turn = processor.prompter.render(item)
    ids = their_tokens(theirs, turn, read, videos)
    head = processor.head.tolist()
    assert [*head, *found.tokens.tolist()] == ids
    ids, sizes = torch.tensor([ids]), checkpoint.model.config
    kinds = (ids == sizes.image_token_id).int() + 2 * (ids == sizes.video_token_id).int()
    positions, _ = checkpoint.model.model.get_rope_index(
        ids,
        kinds,
        read.get("image_grid_thw"),
        torch.stack([grid for grid, *_ in videos]) if videos else None,
    )
    np.testing.assert_array_equal(found.positions, positions[:, 0, len(head) :].T - len(head))


def their_inputs(checkpoint, processor, item):
    images = [Image.open(io.BytesIO(content)) for content in item.images]
    (encoded,) = processor.encode([item])
    clips = [medium.content for medium in encoded.visuals[len(images) :]]
    asked = processor.prompter.asked(item).after
    limits = {"max_pixels": MEDIA.image_max_pixels, "min_pixels": MEDIA.image_min_pixels}
    return hf_items.make_inputs(
        checkpoint, text=item.text, images=images, clips=clips, prompt=asked, **limits
    )


TRIPLETS = [
    (Item(images=(png(0),)), Item("a fox"), Item(videos=(clip(5, 2),))),
    (Item("a market"), Item("the dog", images=(png(1),)), Item("women at a market")),
]


def test_gradients_equal_those_of_torch(checkpoint, processor, tmp_path):
    """Of a decoder whose first two layers add features, and of one that has no more than these."""
    checkpoint = tiny.write(tmp_path, "qwen3_vl", tied=False, num_layers=2)
    expected_loss, model = gradients.of_torch(
        checkpoint, TRIPLETS, lambda item: their_inputs(checkpoint, processor, item)
    )
    factors = gradients.factors_of_torch(model, torch.detach)
    loss, found = gradients.ours(tmp_path, factors, TRIPLETS, processor)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    visual = model.base_model.model.model.visual
    mergers = visual.deepstack_merger_list
    expected = {
        **gradients.factors_of_torch(model, lambda x: x.grad),
        "vision/patch_embed/bias": visual.patch_embed.proj.bias.grad,
        "vision/positions": visual.pos_embed.weight.grad,
        "vision/merger/output/bias": visual.merger.linear_fc2.bias.grad,
        "vision/deep_mergers/hidden/bias": torch.stack(
            [merger.linear_fc1.bias.grad for merger in mergers]
        ),
        "vision/blocks/mlp/output/kernel": torch.stack(
            [block.mlp.linear_fc2.weight.grad.T for block in visual.blocks]
        ),
    }
    gradients.check(found, expected)


def test_a_decoder_of_one_layer(tmp_path):
    """Which adds features after its last layer, where all but the pooled tokens are left out."""
    checkpoint = tiny.write(tmp_path, "qwen3_vl", tied=False, num_layers=1)
    embedder = Embedder(tmp_path, media=MEDIA, dtype="float32")
    item = Item("what is it", images=(png(2),), videos=(clip(5, 2),))
    inputs = their_inputs(checkpoint, embedder.processor, item)
    expected = hf_items.run(checkpoint, inputs.pop("input_ids"), **inputs)
    np.testing.assert_allclose(embedder.encode(item), expected, atol=1e-4)
