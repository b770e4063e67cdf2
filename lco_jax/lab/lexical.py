"""Baselines without a decoder: what aligned towers say of single words is in them already.

All compare a medium with a text by the decoder's table of token embeddings alone:

* `features`: the mean of the medium's features, and the mean of the text's token embeddings;
* `nearest_tokens`: the mean embedding of the tokens that the features are nearest to (each run of
  one token once), and that of the text's tokens;
* `token_chances`: how likely the medium makes the tokens of the text, in the sense in which
  alignment trains it: the chance of a token falls with the squared distance of its embedding from
  a feature, a medium has the mean chance over its features, and the score is the mean over the
  text's different tokens of the logarithm of that;
* `read_texts`, where the decoder reads media as texts (`media_texts.py`): the mean embedding of the
  tokens of that very text, and that of the text's tokens.

Of pairs of texts there are two: `mean_tokens`, the mean embeddings of their tokens, and
`shared_words` (`shared_words.py`), which needs no model.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lco_jax.config import MediaConfig, Memory
from lco_jax.data.encode.encoded import Known
from lco_jax.data.records import Item
from lco_jax.evaluate.hook import Baselines
from lco_jax.lab.media_texts import closeness, make_reader, starts_of_runs
from lco_jax.lab.shared_words import shared_words
from lco_jax.train.known_features import compiled_towers, compute_features
from lco_jax.train.loop import Snapshot
from lco_jax.weights.hub import to_host

READ_TEXTS = "read_texts"
NAMES = ("features", "nearest_tokens", "token_chances", READ_TEXTS)
"""Of media."""
TEXT_NAMES = ("mean_tokens", "shared_words")
LEXICAL = (*NAMES, *TEXT_NAMES)
_BLOCK = 64
"""Features that are compared with the whole table at a time."""

Sides = tuple[Float[np.ndarray, "N E"], Float[np.ndarray, "N E"]]
"""Vectors of media and of texts."""


def lexical_vectors(
    shown: Sequence[Item], named: Sequence[Item], snapshot: Snapshot
) -> Mapping[str, Sides]:
    """The vectors of each baseline that there is, of items with one medium each, or of texts, and
    of their texts. They have unit length, but for those of `token_chances`, whose products are
    scores as they are.

    Raises:
        ValueError: an item does not have exactly one medium, and others have some.
    """
    processor = snapshot.processor
    rows = processor.prompter.tokens_of([item.text for item in named])
    table = to_host(snapshot.params["embed"]["table"]).astype(np.float32)
    texts = _means(table, rows)
    if not any(item.has_media for item in shown):
        both = [[item.text for item in side] for side in (shown, named)]
        own = _means(table, processor.prompter.tokens_of(both[0]))
        return {"mean_tokens": (own, texts), "shared_words": shared_words(*both)}
    # Not what is added to later layers.
    features = [found[:, : table.shape[1]] for found in _features_of(shown, snapshot)]
    means = _unit(np.stack([found.mean(axis=0) for found in features]))

    wanted = np.unique(np.concatenate([np.asarray(row) for row in rows]))
    nearest, chances = _read_by_tokens(features, table, wanted)
    found = {
        "features": (means, texts),
        "nearest_tokens": (_means(table, nearest), texts),
        "token_chances": (_log_chances(chances), _bags(rows, wanted)),
    }
    parts = (snapshot.graph, snapshot.params, processor, snapshot.mesh, Memory())
    if _is_read_as_text(processor.media) and (reader := make_reader(*parts)) is not None:
        read = [item.text for item in reader.read(shown)]
        found[READ_TEXTS] = (_means(table, processor.prompter.tokens_of(read)), texts)
    return found


def _features_of(shown: Sequence[Item], snapshot: Snapshot) -> list[Float[np.ndarray, "n D"]]:
    processor = snapshot.processor
    read = []
    for number, item in enumerate(shown):
        media = processor.prompter.ordered_media(item)
        if len(media) != 1:
            raise ValueError(f"item {item.id or number} has {len(media)} media, expected one")
        read.append((str(number), processor.read_medium(*media[0])))
    with jax.set_mesh(snapshot.mesh):
        run = compiled_towers(snapshot.graph)
        found = compute_features(read, processor, run, snapshot.params, snapshot.mesh, Memory())
        return [_joined(parts) for _, parts in found]


def _joined(parts: list[Known]) -> Float[np.ndarray, "n D"]:
    return np.concatenate([part.features for part in parts])


def _read_by_tokens(
    features: Sequence[Float[np.ndarray, "n D"]],
    table: Float[np.ndarray, "V D"],
    wanted: Int[np.ndarray, "K"],
) -> tuple[list[Int[np.ndarray, "m"]], Float[np.ndarray, "N K"]]:
    """Of every medium the tokens that its features are nearest to, and the mean chances of the
    wanted ones."""
    joined = np.concatenate(features)
    count = len(joined)
    padded = np.pad(joined, ((0, -count % _BLOCK), (0, 0)))
    held = jnp.asarray(table)
    blocks = [
        _nearest_and_chances(held, padded[start : start + _BLOCK], wanted)
        for start in range(0, len(padded), _BLOCK)
    ]
    tokens, chances = (np.concatenate(part)[:count] for part in zip(*blocks, strict=True))
    ends = np.cumsum([len(found) for found in features])[:-1]
    nearest = [own[starts_of_runs(own)] for own in np.split(tokens, ends)]
    return nearest, np.stack([own.mean(axis=0) for own in np.split(chances, ends)])


@jax.jit
def _nearest_and_chances(
    table: Float[Array, "V D"], features: Float[Array, "n D"], wanted: Int[Array, "K"]
) -> tuple[Int[Array, "n"], Float[Array, "n K"]]:
    logits = closeness(table, features)
    return jnp.argmax(logits, axis=1), jax.nn.softmax(logits, axis=1)[:, wanted]


def _log_chances(chances: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Their logarithms; divided by one number for all, so that scores are no larger than
    cosines."""
    floor = np.finfo(np.float32).tiny
    logarithms = np.log(np.maximum(chances, floor))
    return (logarithms / -math.log(floor)).astype(np.float32)


def _bags(rows: Sequence[Sequence[int]], wanted: Int[np.ndarray, "K"]) -> Float[np.ndarray, "N K"]:
    """Of every text the share of each of its different tokens."""
    bags = np.zeros((len(rows), len(wanted)), np.float32)
    for bag, row in zip(bags, rows, strict=True):
        bag[np.searchsorted(wanted, np.unique(row))] = 1
    return bags / bags.sum(axis=1, keepdims=True)


def _means(
    table: Float[np.ndarray, "V D"], rows: Sequence[Sequence[int]]
) -> Float[np.ndarray, "N D"]:
    """Of every row of tokens the direction of their mean embedding."""
    return _unit(np.stack([table[np.asarray(row)].mean(axis=0) for row in rows]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def baselines_of(media: MediaConfig) -> Baselines:
    """For the evaluations of a run that reads media so; the lab's tables and reports know them by
    these names."""
    names = NAMES if _is_read_as_text(media) else NAMES[:-1]
    return Baselines(names, lexical_vectors, of_texts=TEXT_NAMES)


def _is_read_as_text(media: MediaConfig) -> bool:
    """Whether the decoder reads all of them so."""
    return media.audio_features == media.image_features == "tokens"
