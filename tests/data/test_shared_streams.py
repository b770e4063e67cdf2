"""Streams of batches for embedding on several processes: as many batches, of the same shapes."""

import functools
import threading

import jax
import numpy as np
import pytest

from lco_jax.data.encode.encoded import Audio, Encoded, Medium, Visual
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
    """An image of up to 256 patches, or an audio of one or two chunks."""
    if rng.random() < 0.7:
        height, width = (2 * rng.integers(1, 9, 2)).tolist()
        sizes = config.vision.sizes
        levels = np.zeros((height * width, sizes["C"] * sizes["Y"] * sizes["X"]), np.uint8)
        content = Visual(levels, Grid(1, height, width), np.ones((2, 3), np.float32))
    else:
        frames = rng.integers(4, 200, rng.integers(1, 3)).astype(np.int32)
        size = (len(frames), config.audio.num_mels, config.audio.chunk_frames)
        content = Audio(np.zeros(size, np.float32), frames)
    count = num_features(content, config)
    positions = np.zeros((count, 3), np.int32)
    return Encoded(
        np.ones(count, np.int32), np.uint64(0), positions, (Medium(content, np.arange(count)),)
    )


def test_items_are_dealt_evenly_and_once():
    shares = [deal(1001, 8, shards) for shards in ((0, 4), (1, 5), (2, 6), (3, 7))]
    assert sorted(np.concatenate(shares)) == list(range(1001))
    assert {len(share) for share in shares} <= {250, 251}
    # Of items that come in turns, each process gets its part of both kinds.
    assert all(90 < np.count_nonzero(share % 2) < 160 for share in shares)
    np.testing.assert_array_equal(deal(7, 4, (0, 1, 2, 3)), np.arange(7))


def test_jobs_through_rows_leave_little_idle(config):
    """Of items of many sizes: rows of tokens and of patches are as long as it suits them."""
    rng = np.random.default_rng(0)
    items = [item for item in (make_item(config, rng) for _ in range(200)) if item.visuals]
    shares = []
    for flows in (False, True):
        stream = make_stream(config, num_shards=1, flows=flows)
        batches = [batch for batch, _ in stream.pack(items)]
        real = sum(np.count_nonzero(batch.segments) for batch in batches)
        shares.append(real / sum(batch.tokens.size for batch in batches))
    assert shares[1] > shares[0]
