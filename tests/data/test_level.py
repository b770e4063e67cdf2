"""Examples are dealt evenly over the chunks and shards of a process, by all that they hold."""

import json

import numpy as np
import pytest

from lco_jax.config import Contrastive, DataConfig, JsonlSource, MediaConfig, Memory
from lco_jax.data import loader as loader_module
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.level import level, spread
from lco_jax.data.records import Exchange, Item, Triplet, media_of
from lco_jax.models.config import read_config
from lco_jax.objectives.traits import traits_of
from tests import tiny
from tests.data.media_files import random_image


def weights_like(seed, chunks, shards, examples):
    """Tokens and patches of texts and of images of many sizes; few examples have audio."""
    rng = np.random.default_rng(seed)
    size = (chunks, shards, examples)
    has_image, units = rng.random(size) < 0.3, rng.integers(64, 676, size)
    tokens = rng.lognormal(4, 0.5, size) + has_image * units
    audio = rng.random(size) < 0.03
    return np.stack([tokens, has_image * units * 4, audio, np.zeros(size)], -1)


def fullness(weights):
    """Of each kind what a cell has on average, over what the fullest has."""
    cells = weights.sum(2).reshape(-1, weights.shape[-1])
    return cells.mean(0) / np.maximum(cells.max(0), 1e-9)


@pytest.mark.parametrize(("chunks", "shards"), [(1, 1), (1, 4), (1, 8), (4, 2), (3, 5)])
def test_cells_weigh_about_as_much(chunks, shards):
    for seed in range(20):
        weights = weights_like(seed, chunks, shards, 16)
        order = level(weights, [range(shards)])
        assert sorted(order.tolist()) == list(range(chunks * shards * 16))
        found = fullness(weights.reshape(-1, 4)[order].reshape(weights.shape))
        tokens, patches, *_ = fullness(weights)
        assert found[0] >= max(0.85, tokens - 0.02) and found[1] >= max(0.75, patches - 0.02)


def test_only_shards_of_a_group_exchange():
    weights = weights_like(0, 2, 6, 5)
    groups = [(0, 3), (1,), (2, 4, 5)]
    order = level(weights, groups).reshape(2, 6, 5)
    places = np.arange(60).reshape(2, 6, 5)
    for group in groups:
        own, found = places[:, list(group)], order[:, list(group)]
        assert sorted(found.ravel().tolist()) == sorted(own.ravel().tolist())
        assert not np.array_equal(found, own)
    assert (np.diff(order) > 0).all()  # in a cell they keep their order


def test_equal_examples_stay():
    weights = np.ones((2, 3, 4, 2))
    order = level(weights, [range(3)])
    assert sorted(order.tolist()) == list(range(24))
    assert level(np.zeros((1, 2, 1, 4)), [range(2)]).tolist() == [0, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One source in which some anchors are images of many sizes."""
    path = tmp_path_factory.mktemp("mixed")
    tiny.write(path, "qwen2_5_vl", num_layers=1)
    rng, lines = np.random.default_rng(0), []
    for number in range(192):
        anchor = {"text": "a fox " * int(rng.integers(1, 20))}
        if rng.random() < 0.3:
            size = tuple(28 * rng.integers(1, 9, 2))
            random_image(number, size).save(path / f"{number}.png")
            anchor = {"image_path": f"{number}.png"}
        lines.append(json.dumps({"anchor": anchor, "positive": {"text": f"the number {number}"}}))
    (path / "mixed.jsonl").write_text("\n".join(lines))
    return path


def test_batches_of_a_mixed_source(folder, monkeypatch):
    """Real tokens and patches of a batch on eight shards, and as they come."""
    media = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=64 * 28 * 28)
    processor = Processor(folder, read_config(folder), media=media)
    data = DataConfig((JsonlSource(str(folder / "mixed.jsonl")),), batch_size=96, num_negatives=0)

    def shares():
        make = traits_of(Contrastive()).make_loader
        memory = Memory(row_tokens=(128, 256), frame_rows=(256, 512))
        loader = make(data, memory, processor, Contrastive(), seed=0, num_shards=8, num_steps=2)
        found = [stats for _, _, stats in loader]
        return np.mean([(one.real_tokens / one.slots, one.real_patches) for one in found], axis=0)

    tokens, patches = shares()
    monkeypatch.setattr(
        loader_module, "spread", lambda sizes, cells: np.arange(len(sizes)).reshape(cells, -1)
    )
    monkeypatch.setattr(loader_module, "levelled", lambda numbers, encoded, *_: (numbers, encoded))
    tokens_apart, patches_apart = shares()
    assert patches > 1.5 * patches_apart and tokens >= tokens_apart


def test_kinds_and_sizes_are_spread_over_all_cells():
    """By what is known of records before they are read, on every host alike."""
    rng = np.random.default_rng(0)
    sizes = np.stack(
        [rng.integers(0, 2, 1056), rng.choice([0, 0, 1, 16], 1056), rng.lognormal(5, 0.6, 1056)], 1
    ).astype(np.int64)
    for cells in (1, 8, 50, 64):
        numbers = spread(sizes, cells)
        assert sorted(numbers[numbers >= 0].tolist()) == list(range(1056))
        assert (np.count_nonzero(numbers < 0, axis=1) <= 1).all()
        own = [sizes[cell[cell >= 0]] for cell in numbers]
        for kind in np.unique(sizes[:, :2], axis=0):
            counts = [np.count_nonzero((cell[:, :2] == kind).all(1)) for cell in own]
            assert max(counts) - min(counts) <= 2
        totals = np.array([cell[:, 2].sum() for cell in own])
        assert totals.max() <= 1.1 * totals.mean()


def test_media_of_records():
    image, sound = Item(images=("a.png",)), Item(audios=("a.wav",))
    both = Item("x", images=("a.png", "b.png"), videos=("a.mp4",))
    records = [
        Triplet(Item("a"), Item("b")),
        Triplet(image, Item("b")),
        Triplet(sound, Item("b")),
        Triplet(image, image),
        Triplet(Item("a"), Item("b"), (both,)),
        Exchange(sound, "b"),
        Exchange(Item(), "b"),
        Triplet(Item(images=("a.png",) * 40), Item("b")),
    ]
    found = [media_of(record) for record in records]
    assert found[2] == found[5] and found[0] == found[6] == 0
    assert len(set(found)) == 6
    assert found[7] < media_of(records[2])
