"""Texts by the words that they share: what finds a definition that repeats its word, without any
model."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_WORD = re.compile(r"\w+")


def shared_words(
    queries: Sequence[str], documents: Sequence[str]
) -> tuple[Float[np.ndarray, "Q W"], Float[np.ndarray, "N W"]]:
    """Unit vectors of both sides with a dimension for every word, whatever its case. A word counts
    once in a text, and the more the fewer of all these texts have it: by the logarithm of one over
    their share (inverse document frequency). A text without words is zero, as like one as another.
    """
    texts = [set(_WORD.findall(text.casefold())) for text in (*queries, *documents)]
    places = {word: place for place, word in enumerate(sorted(set().union(*texts)))}
    bags = np.zeros((len(texts), len(places)))
    for bag, words in zip(bags, texts, strict=True):
        bag[[places[word] for word in words]] = 1
    bags *= np.log(len(texts) / bags.sum(axis=0))
    lengths = np.linalg.norm(bags, axis=1, keepdims=True)
    unit = (bags / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit[: len(queries)], unit[len(queries) :]
