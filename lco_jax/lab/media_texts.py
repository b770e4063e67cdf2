"""Recordings and images as texts that their features say, for models whose towers were aligned with
the embeddings of tokens.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.config import Memory
from lco_jax.data.encode.encoded import Content, Kind
from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError
from lco_jax.data.records import Item
from lco_jax.models.build import Params
from lco_jax.train.known_features import compiled_towers, compute_features

_BLOCK = 64
"""Features that are compared with the whole table at a time."""
_LEAST_RUN = 3
"""Features on end, 0.12 s, that a token is heard in: shorter runs are mostly mistakes."""
_WORDS = 5
"""That are seen in an image."""
_WORD = re.compile(" [a-z]{3,}")
"""A token that is a word; parts of words, names and letters say little of an image."""
_ILLEGIBLE = "?"


class MediaTexts:
    """Puts texts in the place of recordings and images.

    What is heard is of the tokens that features are nearest to those that `_LEAST_RUN` features on
    end or more are nearest to, each run once (where no run is so long, the longest ones). It has
    about as many tokens as a transcript. What is seen is the `_WORDS` words with the highest mean
    chance over the features of the image, where the chance of a word falls with the squared
    distance of its embedding, as in alignment.

    Args:
        kinds: the media that become texts.

    Raises:
        ValueError: several processes, of which each would read all media.
    """

    def __init__(
        self,
        graph: nnx.GraphDef,
        params: Params,
        processor: Processor,
        mesh: jax.sharding.Mesh,
        memory: Memory,
        kinds: Sequence[Kind] = ("audio", "image"),
    ):
        if jax.process_count() > 1:
            settings = " and ".join(f"data.media.{kind}_features" for kind in kinds)
            raise ValueError(f"{settings}=tokens is for one process; use all")
        self._processor, self._mesh, self._memory = processor, mesh, memory
        self._params, self._kinds = params, kinds
        with jax.set_mesh(mesh):
            self._towers = compiled_towers(graph)

    def read(self, items: Sequence[Item | ValueError]) -> list[Item | ValueError]:
        """The items with texts in the place of media, before their own. Where a medium cannot be
        read its item stays as it is: whoever needs it is told then.
        """
        found: dict[str, tuple[Content, ...]] = {}
        good = [item for item in items if isinstance(item, Item)]
        for kind, source in (medium for item in good for medium in self._media(item)):
            with contextlib.suppress(RecordError):
                key = content_hash(kind, source)
                if key not in found:
                    found[key] = self._processor.read_medium(kind, source)
        texts = self._texts(found) if found else {}
        return [self._written(item, texts) if isinstance(item, Item) else item for item in items]

    def _media(self, item: Item):
        media = self._processor.prompter.ordered_media(item)
        return [(kind, source) for kind, source in media if kind in self._kinds]

    def _written(self, item: Item, texts: dict[str, str]) -> Item:
        try:
            found = [texts[content_hash(*medium)] for medium in self._media(item)]
        except (KeyError, RecordError):
            return item
        return replace(
            item,
            text="\n".join(filter(None, (*found, item.text))),
            audios=() if "audio" in self._kinds else item.audios,
            images=() if "image" in self._kinds else item.images,
        )

    def _texts(self, media: dict[str, tuple[Content, ...]]) -> dict[str, str]:
        with jax.set_mesh(self._mesh):
            found = compute_features(
                list(media.items()),
                self._processor,
                self._towers,
                self._params,
                self._mesh,
                self._memory,
            )
            parts = {key: part for key, (part,) in found}
            heard = {key: part.features for key, part in parts.items() if part.grid is None}
            seen = {key: part.features for key, part in parts.items() if part.grid is not None}
            tokens = self._heard(heard) if heard else {}
            tokens |= {key: self._seen(features) for key, features in seen.items()}
        decode = self._processor.prompter.decode
        return {key: decode(own).strip() or _ILLEGIBLE for key, own in tokens.items()}

    def _heard(self, recordings: dict[str, Float[np.ndarray, "n D"]]) -> dict[str, list[int]]:
        """All share the blocks: most are much shorter than one."""
        table, features = self._params["embed"]["table"], np.concatenate([*recordings.values()])
        parts = []
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK]
            padded = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
            parts.append(np.asarray(_nearest(table, padded))[: len(block)])
        ends = np.cumsum([len(features) for features in recordings.values()])[:-1]
        runs = map(_long_runs, np.split(np.concatenate(parts), ends))
        return dict(zip(recordings, runs, strict=True))

    def _seen(self, features: Float[np.ndarray, "n D"]) -> list[int]:
        padded = np.pad(features, ((0, -len(features) % _BLOCK), (0, 0)))
        is_real = np.arange(len(padded)) < len(features)
        chances = _mean_chances(self._params["embed"]["table"], self._words, padded, is_real)
        return self._words[np.argsort(-np.asarray(chances), kind="stable")[:_WORDS]].tolist()

    @cached_property
    def _words(self) -> Int[np.ndarray, "W"]:
        """Those of the vocabulary; without any, all tokens."""
        count = self._params["embed"]["table"].shape[0]
        decode = self._processor.prompter.decode
        found = [token for token in range(count) if _WORD.fullmatch(decode([token]))]
        return np.array(found if len(found) >= _WORDS else range(count))


def starts_of_runs(tokens: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    """Where another token begins than the one before."""
    return np.flatnonzero(np.append(True, tokens[1:] != tokens[:-1]))


def _long_runs(tokens: Int[np.ndarray, "n"]) -> list[int]:
    starts = starts_of_runs(tokens)
    lengths = np.diff(np.append(starts, len(tokens)))
    return tokens[starts[lengths >= min(_LEAST_RUN, lengths.max())]].tolist()


def make_reader(
    graph: nnx.GraphDef,
    params: Params,
    processor: Processor,
    mesh: jax.sharding.Mesh,
    memory: Memory,
) -> MediaTexts | None:
    """What an encoder reads media with, as `audio_features` and `image_features` of `data.media`
    say (None: the towers)."""
    asked = {"audio": processor.media.audio_features, "image": processor.media.image_features}
    kinds = [kind for kind, how in asked.items() if how == "tokens" and kind in processor.kinds]
    return MediaTexts(graph, params, processor, mesh, memory, kinds) if kinds else None


@jax.jit
def _nearest(table: Float[Array, "V D"], features: Float[Array, "n D"]) -> Int[Array, "n"]:
    """The token whose embedding lies nearest to each feature."""
    return jnp.argmax(closeness(jax.reshard(table, jax.P()), features), axis=1)


@jax.jit
def _mean_chances(
    table: Float[Array, "V D"],
    words: Int[Array, "W"],
    features: Float[Array, "n D"],
    is_real: Array,
) -> Float[Array, "W"]:
    chances = jax.nn.softmax(closeness(jax.reshard(table, jax.P())[words], features), axis=1)
    return jnp.where(is_real[:, None], chances, 0).sum(axis=0)


def closeness(table: Float[Array, "V D"], features: Float[Array, "n D"]) -> Float[Array, "n V"]:
    """The squared distances, without the part that all tokens share, negative."""
    table = table.astype(jnp.float32)
    return 2 * features @ table.T - jnp.square(table).sum(axis=1)
