"""Streams of batches for embedding on several processes: as many batches, of the same shapes."""

import functools
import threading

import jax
import numpy as np
import pytest

from lco_jax.data.encode.encoded import Audio, Encoded, Known, Medium, Visual
from lco_jax.data.encode.positions import Grid
from lco_jax.data.encode.row import num_features
from lco_jax.data.pack.media_stream import MediaStream
from lco_jax.data.pack.shares import deal
from lco_jax.data.pack.stream import pack_texts
from lco_jax.models.config import read_config
from tests import tiny
from tests.data.test_batch import HEAD, ROW_TOKENS, make_items


def together(stream, parts):
    """What `stream(part, agree)` gives for each part, all in threads that agree with each other."""
    barrier, asked, results = threading.Barrier(len(parts), timeout=30), {}, [None] * len(parts)

    def run(index):
        times = {}

        def agree(key, values):
            times[key] = times.get(key, 0) + 1
            said = asked.setdefault((key, times[key]), {})
            said[index] = values
            barrier.wait()
            return tuple(np.max(list(said.values()), axis=0).tolist())

        try:
            results[index] = list(stream(parts[index], agree))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def check(results, parts):
    """Each item once where it belongs, and the same program everywhere."""
    for result, part in zip(results, parts, strict=True):
        chosen = np.concatenate([indices for _, indices in result])
        assert sorted(chosen[chosen >= 0]) == list(range(len(part)))
    for batches in zip(*results, strict=True):
        shapes = [jax.tree.map(np.shape, batch) for batch, _ in batches]
        assert all(shape == shapes[0] for shape in shapes)


ONES = np.ones((2, 3), np.float32)
FLOWS = pytest.mark.parametrize("flows", [False, True], ids=["in rows", "through rows"])


@FLOWS
@pytest.mark.parametrize("seed", range(6))
def test_texts(seed, flows):
    rng = np.random.default_rng(seed)
    counts = [int(rng.integers(1, 150)), int(rng.integers(0, 30)), 0]
    parts = [make_items(rng, rng.integers(1, rng.integers(2, 65), count)) for count in counts]
    pack = functools.partial(pack_texts, flows=flows)
    results = together(lambda part, agree: pack(part, ROW_TOKENS, 200, 2, HEAD, agree), parts)
    check(results, parts)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_omni_thinker", num_layers=1)
    return read_config(folder)


@FLOWS
@pytest.mark.parametrize("seed", range(4))
def test_media(config, seed, flows):
    rng = np.random.default_rng(seed)
    counts = [int(rng.integers(20, 60)), int(rng.integers(0, 10)), 0]
    rounds = [
        [[make_item(config, rng) for _ in range(count)] for count in counts] for _ in range(2)
    ]

    def pack(part, agree):
        stream = make_stream(config, num_shards=2, agree=agree, flows=flows)
        for encoded in part:  # the second time some shapes are known
            yield list(stream.pack(encoded))

    results = together(pack, list(zip(*rounds, strict=True)))
    for number, parts in enumerate(rounds):
        check([result[number] for result in results], parts)


def make_stream(config, **options) -> MediaStream:
    return MediaStream(
        config,
        (64, 128, 256),
        (128, 256, 512),
        tokens_per_shard=512,
        patches_per_shard=1024,
        head_tokens=HEAD,
        **options,
    )


def make_item(config, rng):
    """An image of up to 256 patches, an audio of one or two chunks, or known features."""
    if rng.random() < 0.2:
        count = int(rng.integers(1, 60))
        features = np.zeros((count, config.feature_size), np.float32)
        return _item(config, [Known(features, Grid(1, 2, 2 * count))])
    if rng.random() < 0.7:
        return images_item(config, [(2 * rng.integers(1, 9, 2)).tolist()])
    frames = rng.integers(4, 200, rng.integers(1, 3)).astype(np.int32)
    size = (len(frames), config.audio.num_mels, config.audio.chunk_frames)
    return _item(config, [Audio(np.zeros(size, np.float32), frames)])


def images_item(config, grids, num_words=0):
    """Images of so many rows and columns of patches, behind so many tokens of a prompt."""
    sizes = config.vision.sizes
    width = sizes["C"] * sizes["Y"] * sizes["X"]
    return _item(
        config,
        [
            Visual(np.zeros((rows * columns, width), np.uint8), Grid(1, rows, columns), ONES)
            for rows, columns in grids
        ],
        num_words,
    )


def _item(config, contents, num_words=0):
    media, first = [], num_words
    for content in contents:
        count = num_features(content, config)
        media.append(Medium(content, first + np.arange(count)))
        first += count
    return Encoded(
        np.ones(first, np.int32), np.uint64(0), np.zeros((first, 3), np.int32), tuple(media)
    )


@FLOWS
def test_a_later_job_may_have_more_known_features(config, flows):
    """Than the one whose batches decided the shape."""
    stream = make_stream(config, num_shards=2, flows=flows)
    for num_words, count in ((60, 4), (4, 60)):
        features = np.zeros((count, config.feature_size), np.float32)
        known = Known(features, Grid(1, 2, 2 * count))
        part = [_item(config, [known], num_words) for _ in range(40)]
        batches = list(stream.pack(part))
        assert len(batches) > 1
        check([batches], [part])


def test_items_are_dealt_evenly_and_once():
    shares = [deal(1001, 8, shards) for shards in ((0, 4), (1, 5), (2, 6), (3, 7))]
    assert sorted(np.concatenate(shares)) == list(range(1001))
    assert {len(share) for share in shares} <= {250, 251}
    # Of items that come in turns, each process gets its part of both kinds.
    assert all(90 < np.count_nonzero(share % 2) < 160 for share in shares)
    np.testing.assert_array_equal(deal(7, 4, (0, 1, 2, 3)), np.arange(7))


@FLOWS
def test_images_of_an_item_lie_where_its_batch_has_room_for_them(config, flows):
    """What takes an item and what fills in its pixels place its images alike, whatever the order
    of their sizes is.
    """
    for seed in range(150):
        rng = np.random.default_rng(seed)
        items = [
            images_item(config, (2 * rng.integers(2, 9, (rng.integers(1, 4), 2))).tolist())
            for _ in range(10)
        ]
        stream = make_stream(config, num_shards=1, flows=flows)
        batches = list(stream.pack(items))
        check([batches], [items])
        real = sum(np.count_nonzero(batch.media.vision.frames) for batch, _ in batches)
        assert real == sum(np.prod(m.content.grid[:3]) for item in items for m in item.visuals)


@pytest.mark.parametrize(("num_small", "num_shapes"), [(3, 1), (60, 2)])
def test_few_small_images_fill_gaps_between_larger_ones(config, num_small, num_shapes):
    items = [images_item(config, [size]) for size in num_small * [(8, 10)] + 4 * [(16, 16)]]
    batches = list(make_stream(config, num_shards=1).pack(items))
    check([batches], [items])
    assert len({batch.media.vision.frames.shape for batch, _ in batches}) == num_shapes


@pytest.mark.parametrize(("seed", "num_shards"), [(0, 1), (1, 1), (2, 1), (3, 2)])
def test_batches_through_rows_are_even(config, seed, num_shards):
    """Small images have more tokens of prompts: all batches of a job get some of them."""
    rng = np.random.default_rng(seed)
    sizes = (2 * rng.integers(2, 19, (64 * num_shards, 2))).tolist()
    items = [images_item(config, [size], num_words=20) for size in sizes]
    stream = MediaStream(
        config,
        (64, 128, 256, 512),
        (1024, 4096, 8192),
        tokens_per_shard=4096,
        patches_per_shard=8192,
        num_shards=num_shards,
        head_tokens=HEAD,
        flows=True,
    )
    batches = list(stream.pack(items))
    check([batches], [items])
    frames = [batch.media.vision.frames for batch, _ in batches]
    patches = [np.count_nonzero(array) for array in frames]
    assert len(batches) == -(-sum(patches) // (8192 * num_shards)) > 1
    assert sum(patches) >= 0.96 * sum(array.size for array in frames)
    tokens = [np.count_nonzero(batch.segments) for batch, _ in batches]
    assert sum(tokens) >= 0.94 * sum(batch.tokens.size for batch, _ in batches)
    assert max(tokens) <= 1.04 * min(tokens)


def test_jobs_through_rows_leave_little_idle(config):
    """Of items of many sizes: they share rows, as long as suits them."""
    rng = np.random.default_rng(0)
    items = [item for item in (make_item(config, rng) for _ in range(200)) if item.visuals]
    shares = []
    for flows in (False, True):
        stream = make_stream(config, num_shards=1, flows=flows)
        batches = [batch for batch, _ in stream.pack(items)]
        frames = [batch.media.vision.frames for batch in batches]
        tokens = sum(np.count_nonzero(batch.segments) for batch in batches)
        patches = sum(map(np.count_nonzero, frames))
        shares.append((
            tokens / sum(batch.tokens.size for batch in batches),
            patches / sum(array.size for array in frames),
        ))  # fmt: skip
        if flows:
            assert len({array.shape for array in frames}) == 1
    assert shares[1][0] > shares[0][0]
    assert shares[1][1] > max(shares[0][1], 0.93)
