"""What the data shards of a mesh are fed by all hosts together: every item once, and replicas the
same."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_batch import MediaBatch
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.steps import LoadStats
from lco_jax.runtime.axes import BATCH_AXES

_NAMED = 3
"""Items that a message names of many."""


@dataclass(frozen=True)
class Feed:
    """What one shard gets in a step."""

    items: frozenset[int]
    """Numbers in the global batch, from 1."""
    digest: str
    """Of all that says what they are and where they lie, pixels and audio left out."""


def feeds_of(batch: Batch, num_shards: int) -> list[Feed]:
    """What the shards of a host get of its part of a batch, in their order."""
    kept = batch if batch.media is None else batch._replace(media=_without_contents(batch.media))
    pieces: list[list[np.ndarray]] = [[] for _ in range(num_shards)]

    def cut(array: np.ndarray, spec: jax.P) -> None:
        if BATCH_AXES not in tuple(spec):
            parts = [array] * num_shards
        else:
            parts = np.split(array, num_shards, tuple(spec).index(BATCH_AXES))
        for own, part in zip(pieces, parts, strict=True):
            own.append(part)

    jax.tree.map(cut, kept, batch_specs(kept))
    segments = np.split(batch.segments, num_shards, axis=1)
    return [
        Feed(frozenset(np.unique(numbers[numbers > 0]).tolist()), _digest(arrays))
        for numbers, arrays in zip(segments, pieces, strict=True)
    ]


class Fullness(NamedTuple):
    """How much of a batch is real, of 1; the rest is computed for nothing."""

    tokens: float
    patches: float | None
    """None: no images."""


def fullness(stats: Sequence[LoadStats]) -> Fullness:
    """That of a batch, from what loaders say of their shares of it."""
    slots = sum(one.slots for one in stats)
    tokens = sum(one.real_tokens for one in stats) / slots
    if stats[0].real_patches is None:
        return Fullness(tokens, None)
    return Fullness(tokens, sum(one.real_patches * one.slots for one in stats) / slots)


def find_faults(
    feeds: Mapping[int, Mapping[int, Feed]], num_shards: int, batch_size: int, roles: int
) -> list[str]:
    """What is wrong with a step, in words; empty: every item is fed once.

    Args:
        feeds: what each host gives each of the data shards that it holds.
        roles: items of an example.
    """
    faults = []
    holders: dict[int, dict[str, list[int]]] = {}
    for host, shards in feeds.items():
        for shard, feed in shards.items():
            holders.setdefault(shard, {}).setdefault(feed.digest, []).append(host)
    if missing := set(range(num_shards)) - holders.keys():
        faults.append(f"no host feeds data shards {_some(missing)}")
    for shard, kinds in sorted(holders.items()):
        if len(kinds) > 1:
            hosts = " and ".join(str(hosts[0]) for hosts in kinds.values())
            faults.append(f"hosts {hosts} feed data shard {shard} other items")
    places: dict[int, set[int]] = {}
    for shards in feeds.values():
        for shard, feed in shards.items():
            for item in feed.items:
                places.setdefault(item, set()).add(shard)
    if twice := {item for item, shards in places.items() if len(shards) > 1}:
        where = _some(places[min(twice)])
        faults.append(f"items {_some(twice)} are fed twice, the first by data shards {where}")
    fed = {(item - 1) // roles for item in places}
    if never := set(range(batch_size)) - fed:
        faults.append(f"examples {_some(never)} of the batch are never fed")
    if beyond := fed - set(range(batch_size)):
        faults.append(f"examples {_some(beyond)} are beyond the batch of {batch_size}")
    return faults


def _some(numbers: Iterable[int]) -> str:
    first, *rest = sorted(numbers)
    named = ", ".join(map(str, [first, *rest][:_NAMED]))
    return f"{named} and {len(rest) + 1 - _NAMED} more" if len(rest) >= _NAMED else named


def _without_contents(media: MediaBatch) -> MediaBatch:
    vision = media.vision and media.vision._replace(patches=media.vision.patches[..., :0])
    audio = media.audio and media.audio._replace(mels=media.audio.mels[..., :0])
    return media._replace(vision=vision, audio=audio)


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).data)
    return digest.hexdigest()
