"""Fills a cache of features: every medium of the data goes once through its tower."""

import collections
import contextlib
import functools
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import track

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Content, Encoded, Kind, Known, Medium, Visual
from lco_jax.data.encode.feature_cache import FeatureCache
from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.row import num_features
from lco_jax.data.errors import RecordError
from lco_jax.data.media.errors import MediaError, TooLongError
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_stream import MediaStream
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Item, MediaSource
from lco_jax.models.build import Params
from lco_jax.models.config import read_config
from lco_jax.objectives.encode import media_features
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.code_digest import code_digest
from lco_jax.runtime.kept_programs import KeptPrograms
from lco_jax.weights.adapted import open_weights
from lco_jax.weights.digests import tensors_digest
from lco_jax.weights.tables import TABLES

log = logging.getLogger(__name__)

_PIECE = 128
"""Media that are read before they are packed."""
_TOKENS, _PATCHES = 4096, 8192
"""Of a batch on each data shard."""
_PATIENCE_S = 30
"""A shared disk may show a file some seconds after another host has written it."""


def open_cache(folder: str, base_folder: Path, processor: Processor, dtype: str) -> FeatureCache:
    """The cache of the towers of a hub folder, whose media the processor reads; folders with the
    same towers share it, whatever their decoders."""
    source, config = open_weights(base_folder), read_config(base_folder)
    names = TABLES[config.family].assign(source.specs).towers
    depends = (
        tensors_digest(source, names),
        (config.vision, config.audio),
        processor.media_settings,
        code_digest(),
        dtype,
    )
    return FeatureCache(folder, repr(depends), dtype)


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

    Several processes, which all call it, share the media between them: each looks for some of them
    in the cache, and what is missing goes once through a tower. Unreadable media are left out:
    whoever needs one is told then.

    Raises:
        ValueError: a process does not see what another has written.
    """
    missing = _find_missing(cache, processor, items, mesh)
    said = processes.gather("missing media", json.dumps(list(missing)))
    owners: dict[str, int] = {}
    for number, keys in enumerate(map(json.loads, said)):
        for key in keys:
            owners.setdefault(key, number)
    if not owners:
        return 0
    partners, main = processes.partners(mesh), jax.process_index() == 0
    _check_same([said[number] for number in partners])
    if main:
        log.info("%d media go through their towers once", len(owners))
    run = compiled_towers(graph)
    entries = [entry for entry in missing.items() if owners[entry[0]] in partners]
    most = max(collections.Counter(owners.values()).values())
    known: list[str] = []
    starts = range(0, most, _PIECE)
    for first in track(starts, "features", console=Console(stderr=True), disable=not main):
        read = _read(processor, entries[first : first + _PIECE])
        for key, parts in compute_features(read, processor, run, params, mesh, memory):
            if jax.process_index() == partners[0]:
                cache.save(key, parts)
                known.append(key)
    _check_seen(cache, known)
    return len(owners)


def _find_missing(
    cache: FeatureCache, processor: Processor, items: Iterable[Item], mesh: jax.sharding.Mesh
) -> dict[str, tuple[Kind, MediaSource]]:
    """Those of this process's share of the media that are not in the cache."""
    shards, num_shards = processes.common_shards(mesh), meshes.num_shards(mesh)
    missing: dict[str, tuple[Kind, MediaSource]] = {}
    for number, (kind, source) in enumerate(_media_of(processor, items)):
        if number % num_shards not in shards:
            continue
        with contextlib.suppress(RecordError):
            key = cache.key(kind, source)
            if key not in cache:
                missing.setdefault(key, (kind, source))
    return missing


def _read(
    processor: Processor, entries: Iterable[tuple[str, tuple[Kind, MediaSource]]]
) -> list[tuple[str, tuple[Content, ...]]]:
    read = []
    for key, (kind, source) in entries:
        try:
            read.append((key, processor.read_medium(kind, source)))
        except TooLongError:
            pass  # as the run asks; the loader says so
        except MediaError as error:
            log.warning("left out: %s", error)
    return read


def _check_same(said: list[str]) -> None:
    """Partners compute the same batches, so they must lack the same."""
    if processes.agree_max("media that only some miss", (int(len(set(said)) > 1),))[0]:
        raise ValueError(
            "memory.feature_cache was filled while this run looked into it; start the run again"
        )


def _check_seen(cache: FeatureCache, known: list[str]) -> None:
    """Every process sees what any has written."""
    said = processes.gather("known media", json.dumps(known))
    unseen = {key for keys in map(json.loads, said) for key in keys if key not in cache}
    deadline_s = time.monotonic() + _PATIENCE_S
    while unseen and time.monotonic() < deadline_s:
        time.sleep(1)
        unseen = {key for key in unseen if key not in cache}
    said = processes.gather("unseen media", str(len(unseen)))
    for number, count in enumerate(map(int, said)):
        if count:
            raise ValueError(
                f"process {number} does not see {count} files that others have written to "
                "memory.feature_cache; choose a folder on a disk that all hosts share"
            )


@functools.lru_cache(maxsize=4)
def compiled_towers(graph: nnx.GraphDef) -> KeptPrograms:
    """The compiled `(params, batch) -> features` of batches of one chunk; models of one
    architecture share it.
    """

    def features(params: Params, batch: Batch) -> Float[Array, "..."]:
        chunk = jax.tree.map(lambda x: x[0], batch)
        return media_features(nnx.merge(graph, params), chunk)

    return KeptPrograms(meshes.compile_for_mesh(features), lambda: f"features of {graph!r}")


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

    Several processes call it together, each with media of its own, which its partners have, too.

    Args:
        run: of `compiled_towers`.
    """
    contents = [content for _, parts in read for content in parts]
    encoded = [_alone(content, processor) for content in contents]
    shards = processes.common_shards(mesh)
    stream = MediaStream(
        processor.config,
        memory.row_tokens,
        memory.frame_rows,
        tokens_per_shard=_TOKENS,
        patches_per_shard=_PATCHES,
        num_shards=len(shards),
        head_tokens=0,
        agree=lambda key, values: processes.agree_max(f"features: {key}", values),
    )
    found: dict[int, np.ndarray] = {}
    for batch, chosen in stream.pack(encoded):
        arrays = processes.to_global(mesh, batch, batch_specs(batch), shards)
        features = run(params, arrays)
        features = processes.own_pieces(mesh, features).astype(np.float32)
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
