"""Recordings as the texts that their features say, for models whose audio tower was aligned with the
embeddings of tokens."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Content
from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError
from lco_jax.data.records import Item
from lco_jax.models.build import Params
from lco_jax.train.known_features import compiled_towers, compute_features

_BLOCK = 64
"""Features that are compared with the whole table at a time."""
_LEAST_RUN = 3
"""Features on end, 0.12 s, that a token is read of: shorter runs are mostly mistakes."""
_ILLEGIBLE = "?"


class AudioTokens:
    """Puts the text that is heard in a recording in its place: of the tokens that its features are
    nearest to those that `_LEAST_RUN` features on end or more are nearest to, each run once. Where
    no run is so long, the longest ones count.

    Noise of single features is gone then, and a text has about as many tokens as its transcript.

    Raises:
        ValueError: several processes, of which each would read all recordings.
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

    def read(self, items: Sequence[Item | ValueError]) -> list[Item | ValueError]:
        """The items with texts in the place of recordings, before their own. Where a recording
        cannot be read an item stays as it is: whoever needs it is told then.
        """
        sounds: dict[str, tuple[Content, ...]] = {}
        good = [item for item in items if isinstance(item, Item)]
        for source in (source for item in good for source in item.audios):
            with contextlib.suppress(RecordError):
                key = content_hash("audio", source)
                if key not in sounds:
                    sounds[key] = self._processor.read_medium("audio", source)
        heard = self._hear(sounds) if sounds else {}
        return [self._written(item, heard) if isinstance(item, Item) else item for item in items]

    def _written(self, item: Item, heard: dict[str, str]) -> Item:
        try:
            texts = [heard[content_hash("audio", source)] for source in item.audios]
        except (KeyError, RecordError):
            return item
        return replace(item, text="\n".join(filter(None, (*texts, item.text))), audios=())

    def _hear(self, sounds: dict[str, tuple[Content, ...]]) -> dict[str, str]:
        with jax.set_mesh(self._mesh):
            found = compute_features(
                list(sounds.items()),
                self._processor,
                self._towers,
                self._params,
                self._mesh,
                self._memory,
            )
            features = {key: part.features for key, (part,) in found}
            return dict(zip(features, self._as_texts([*features.values()]), strict=True))

    def _as_texts(self, sounds: Sequence[Float[np.ndarray, "n D"]]) -> list[str]:
        """The text of each. All share the blocks: most are much shorter than one."""
        table, features = self._params["embed"]["table"], np.concatenate(sounds)
        parts = []
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            padded = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
            parts.append(np.asarray(_nearest(table, padded))[: len(block)])
        ends = np.cumsum([len(sound) for sound in sounds])[:-1]
        tokens = [_long_runs(own) for own in np.split(np.concatenate(parts), ends)]
        return [self._processor.prompter.decode(own).strip() or _ILLEGIBLE for own in tokens]


def _long_runs(tokens: Int[np.ndarray, "n"]) -> list[int]:
    starts = np.flatnonzero(np.append(True, tokens[1:] != tokens[:-1]))
    lengths = np.diff(np.append(starts, len(tokens)))
    return tokens[starts[lengths >= min(_LEAST_RUN, lengths.max())]].tolist()


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
def _nearest(table: Float[Array, "V D"], features: Float[Array, "n D"]) -> Int[Array, "n"]:
    """The token whose embedding lies nearest to each feature."""
    table = jax.reshard(table, jax.P()).astype(jnp.float32)
    return jnp.argmax(2 * features @ table.T - jnp.square(table).sum(axis=1), axis=1)
