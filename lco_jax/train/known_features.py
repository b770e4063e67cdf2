"""Fills a cache of features: every medium of the data goes once through its tower."""

import functools
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import track

from lco_jax.config import MediaConfig, Memory
from lco_jax.config.io import to_json, with_former_names
from lco_jax.data.encode.encoded import Content, Encoded, Kind, Known, Medium, Visual
from lco_jax.data.encode.feature_cache import FeatureCache
from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.row import num_features
from lco_jax.data.media.errors import MediaError
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_stream import MediaStream
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Item, MediaSource
from lco_jax.models.build import Params
from lco_jax.models.config import read_config
from lco_jax.objectives.encode import media_features
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.tables import TABLES

log = logging.getLogger(__name__)

_PIECE = 128
"""Media that are read before they are packed."""
_TOKENS, _PATCHES = 4096, 8192
"""Of a batch on each data shard."""
_SAMPLE_VALUES = 256


def open_cache(folder: str, base_folder: Path, media: MediaConfig, dtype: str) -> FeatureCache:
    """The cache of the towers of a hub folder, which reads media as `media` says."""
    source = SafetensorsFolder(base_folder)
    table = TABLES[read_config(base_folder).family]
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(table.assign(source.specs).towers):
        # A sample of each tensor tells towers apart and takes no time.
        sample = np.ascontiguousarray(source.view(name).reshape(-1)[:_SAMPLE_VALUES])
        digest.update(f"{name} {source.specs[name]}".encode() + sample.tobytes())
    sizes = json.dumps(with_former_names(to_json(media)), sort_keys=True)
    return FeatureCache(folder, f"{digest.hexdigest()} {dtype} {sizes}", dtype)


def fill_cache(
    cache: FeatureCache,
    processor: Processor,
    items: Iterable[Item],
    graph: nnx.GraphDef,
    params: Params,
    mesh: jax.sharding.Mesh,
    memory: Memory,
) -> int:
    """Compute what is not in the cache; returns how many media that were.

    Unreadable media are left out: whoever needs one is told then.

    Raises:
        ValueError: several processes, of which each would write the same files.
    """
    check_filler(jax.process_count())
    missing: dict[str, tuple[Kind, MediaSource]] = {}
    for kind, source in _media_of(processor, items):
        try:
            key = cache.key(kind, source)
        except MediaError:
            continue
        if key not in cache:
            missing.setdefault(key, (kind, source))
    if not missing:
        return 0
    log.info("%d media go through their towers once", len(missing))
    run = compiled_towers(graph)
    entries = list(missing.items())
    pieces = [entries[first : first + _PIECE] for first in range(0, len(entries), _PIECE)]
    for piece in track(pieces, "features", console=Console(stderr=True)):
        read: list[tuple[str, tuple[Content, ...]]] = []
        for key, (kind, source) in piece:
            try:
                read.append((key, processor.read_medium(kind, source)))
            except MediaError as error:
                log.warning("left out: %s", error)
        for key, parts in compute_features(read, processor, run, params, mesh, memory):
            cache.save(key, parts)
    return len(missing)


def check_filler(num_processes: int) -> None:
    """Raise ValueError unless there is one process to fill a cache."""
    if num_processes > 1:
        raise ValueError(
            "a feature cache is filled by one process; start the run on one host first, or leave "
            "memory.feature_cache out"
        )


@functools.lru_cache(maxsize=4)
def compiled_towers(graph: nnx.GraphDef) -> Callable[[Params, Batch], jax.Array]:
    """The compiled `(params, chunk) -> features`; models of one architecture share it."""
    return meshes.compile_for_mesh(
        lambda params, chunk: media_features(nnx.merge(graph, params), chunk)
    )


def _media_of(processor: Processor, items: Iterable[Item]) -> Iterator[tuple[Kind, MediaSource]]:
    for item in items:
        if item.has_media:
            yield from processor.prompter.ordered_media(item)


def compute_features(
    read: Sequence[tuple[str, tuple[Content, ...]]],
    processor: Processor,
    run: Callable[[Params, Batch], jax.Array],
    params: Params,
    mesh: jax.sharding.Mesh,
    memory: Memory,
) -> Iterator[tuple[str, list[Known]]]:
    """The features of some media that were read, by their key.

    Args:
        run: the compiled `(params, chunk) -> features`.
    """
    contents = [content for _, parts in read for content in parts]
    encoded = [_alone(content, processor) for content in contents]
    stream = MediaStream(
        processor.config,
        memory.row_tokens,
        memory.frame_rows,
        tokens_per_shard=_TOKENS,
        patches_per_shard=_PATCHES,
        num_shards=meshes.num_shards(mesh),
        head_tokens=0,
    )
    found: dict[int, np.ndarray] = {}
    for batch, chosen in stream.pack(encoded):
        arrays = processes.to_global(mesh, batch, batch_specs(batch))
        features = np.asarray(run(params, jax.tree.map(lambda x: x[0], arrays)), np.float32)
        for index in chosen[chosen >= 0].tolist():
            found[index] = _gather(batch, features, index + 1)
    numbers = itertools.count()
    for key, parts in read:
        yield (
            key,
            [
                Known(found[next(numbers)], part.grid if isinstance(part, Visual) else None)
                for part in parts
            ],
        )


def _alone(content: Content, processor: Processor) -> Encoded:
    """An item that is nothing but the tokens of one medium."""
    count = num_features(content, processor.config)
    medium = Medium(content, np.arange(count))
    positions = np.zeros((count, 3), np.int32)
    return Encoded(np.ones(count, np.int32), np.uint64(0), positions, (medium,))


def _gather(batch: Batch, features: np.ndarray, segment: int) -> np.ndarray:
    """The features in the places of an item's tokens."""
    rows_per_shard = batch.segments.shape[1] // len(features)
    rows, columns = np.nonzero(batch.segments[0] == segment)
    return features[rows[0] // rows_per_shard, batch.media.slots[0, rows, columns]]
