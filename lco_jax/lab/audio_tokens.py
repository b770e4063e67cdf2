"""Sounds as the tokens that their features say, for models whose ear was aligned with tokens."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Content, Kind, Known
from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError
from lco_jax.data.records import Item, MediaSource
from lco_jax.models.build import Params
from lco_jax.train.known_features import compiled_towers, compute_features

_BLOCK = 64
"""Features that are compared with the whole table at a time."""
_LEAST_RUN = 3
"""Features on end, 0.12 s, that a token is read of: shorter runs are mostly mistakes."""


class AudioTokens:
    """Knows the sounds that it has read: each is the embeddings of the tokens that its features are
    nearest to, of which `_LEAST_RUN` on end must be nearest to the same, which is then read once.
    Where no run is so long, the longest ones count.

    Noise of single features is gone then, and a sound takes about as many tokens as its transcript.

    Raises:
        ValueError: several processes, of which each would read all sounds.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        params: Params,
        processor: Processor,
        mesh: jax.sharding.Mesh,
        memory: Memory,
    ):
        if jax.process_count() > 1:
            raise ValueError("data.media.audio_features=tokens is for one process; use all")
        self._processor, self._mesh, self._memory = processor, mesh, memory
        self._params = params
        with jax.set_mesh(mesh):
            self._towers = compiled_towers(graph)
        self._known: dict[str, tuple[Known, ...]] = {}

    def read(self, items: Sequence[Item]) -> None:
        """Hear the sounds of some items and forget all others. Those that cannot be read stay
        unknown: whoever needs one is told then.
        """
        sounds: dict[str, tuple[Content, ...]] = {}
        for source in (source for item in items for source in item.audios):
            with contextlib.suppress(RecordError):
                key = self.key("audio", source)
                if key not in sounds:
                    sounds[key] = self._processor.read_medium("audio", source)
        self._known = {}
        if not sounds:
            return
        read = list(sounds.items())
        with jax.set_mesh(self._mesh):
            found = compute_features(
                read, self._processor, self._towers, self._params, self._mesh, self._memory
            )
            features = {key: part.features for key, (part,) in found}
            self._known = {
                key: (Known(embeddings, None),)
                for key, embeddings in zip(
                    features, self._as_tokens([*features.values()]), strict=True
                )
            }

    def key(self, kind: Kind, source: MediaSource) -> str:
        """The name under which a medium would be known.

        Raises:
            MediaError: the file is missing or empty.
        """
        return content_hash("audio", source) if kind == "audio" else ""

    def load(self, key: str) -> tuple[Known, ...] | None:
        """A sound that was read (None: any other medium)."""
        return self._known.get(key)

    def _as_tokens(
        self, sounds: Sequence[Float[np.ndarray, "n D"]]
    ) -> Iterator[Float[np.ndarray, "m D"]]:
        """The embeddings that stand for each sound. All share the blocks: most sounds are much
        shorter than one."""
        table, features = self._params["embed"]["table"], np.concatenate(sounds)
        parts = []
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            padded = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
            parts.append([np.asarray(x)[: len(block)] for x in _nearest(table, padded)])
        tokens, embeddings = (np.concatenate(part) for part in zip(*parts, strict=True))
        ends = np.cumsum([len(sound) for sound in sounds])[:-1]
        for own, named in zip(np.split(tokens, ends), np.split(embeddings, ends), strict=True):
            starts = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
            lengths = np.diff(np.append(starts, len(own)))
            yield named[starts[lengths >= min(_LEAST_RUN, lengths.max())]]


def make_reader(
    graph: nnx.GraphDef,
    params: Params,
    processor: Processor,
    mesh: jax.sharding.Mesh,
    memory: Memory,
) -> AudioTokens | None:
    """What an encoder reads audio with, as `data.media.audio_features` says (None: the tower)."""
    if processor.media.audio_features == "tokens" and "audio" in processor.kinds:
        return AudioTokens(graph, params, processor, mesh, memory)
    return None


@jax.jit
def _nearest(
    table: Float[Array, "V D"], features: Float[Array, "n D"]
) -> tuple[Int[Array, "n"], Float[Array, "n D"]]:
    """The token whose embedding lies nearest to each feature, and that embedding."""
    table = jax.reshard(table, jax.P()).astype(jnp.float32)
    scores = 2 * features @ table.T - jnp.square(table).sum(axis=1)
    tokens = jnp.argmax(scores, axis=1)
    return tokens, table[tokens]
