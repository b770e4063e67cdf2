"""What a refined model is compared with in the lab: conditions, treatments, and their names."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lco_jax.lab.lexical import LEXICAL
from lco_jax.metrics.comparison import EmbeddedPairs

WHOLE = "whole"
"""All layers of a decoder that was cut, as the stage before has left them."""
SHUFFLED = "shuffled"
"""Refined for as many steps on the same texts, paired at random (`data.shuffled_positives`)."""
CONDITIONS: Mapping[str, str] = MappingProxyType({
    "after": "after",
    "before": "before",
    WHOLE: "all layers, untouched",
    SHUFFLED: "refined on shuffled pairs",
    "features": "no decoder: mean features",
    "nearest_tokens": "no decoder: nearest tokens",
    "token_chances": "no decoder: token chances",
    "read_texts": "no decoder: the text that is read",
    "mean_tokens": "no decoder: mean tokens",
    "shared_words": "no decoder: shared words",
})  # fmt: skip
"""By name, how tables call them."""
EXPLAINED: Mapping[str, str] = MappingProxyType({
    "after": "the refined model",
    "before": "the model that the stage before has left, with the layers that the last one trains",
    WHOLE: "the decoder that was cut, with all its layers and not refined",
    SHUFFLED: "refined for as many steps on the same texts, paired at random",
    "features": "the mean of the features of a medium, and the mean embedding of a text's tokens",
    "nearest_tokens": "the same of the tokens that the features are nearest to",
    "token_chances": "how likely the features make the text's tokens, as alignment trains it",
    "read_texts": "the mean embedding of the tokens of the text that is read in a medium's place",
    "mean_tokens": "of two texts, the mean embeddings of their tokens",
    "shared_words": "of two texts, the words that both have, rare ones for more; no model at all",
})  # fmt: skip
"""And what they are, for readers of a report."""
TREATMENTS: Mapping[str, str] = MappingProxyType({
    "raw": "",
    "centred": "less the common mean",
    "by_side": "less each side's mean",
    "whitened": "each side whitened",
})  # fmt: skip
"""What is done to vectors of pairs, with their own statistics and without knowing which belong
together."""
_APPLY: Mapping[str, Callable[[EmbeddedPairs], EmbeddedPairs]] = MappingProxyType({
    "raw": lambda pairs: pairs,
    "centred": EmbeddedPairs.centred,
    "by_side": EmbeddedPairs.centred_by_side,
    "whitened": EmbeddedPairs.whitened_by_side,
})  # fmt: skip

Scores = Mapping[str, Float[np.ndarray, "n"]]
"""By metric: every query's score."""


class Control(NamedTuple):
    """A condition under a treatment."""

    condition: str
    treatment: str = "raw"

    @property
    def title(self) -> str:
        """How tables call it."""
        named = CONDITIONS[self.condition], TREATMENTS[self.treatment]
        return ", ".join(filter(None, named))


def all_treatments(
    evaluations: Mapping[str, EmbeddedPairs],
) -> dict[Control, EmbeddedPairs]:
    """Every condition under every treatment."""
    return {
        Control(condition, treatment): apply(pairs)
        for condition, pairs in evaluations.items()
        for treatment, apply in _APPLY.items()
    }


def strongest(means: Mapping[Control, float], *, lexical: bool = False) -> Control | None:
    """The cheap explanation with the highest mean: anything but the refined model.

    It is chosen on the very queries that it is then compared on, which favours it.

    Args:
        lexical: only of those without a decoder (None if there are none).
    """
    candidates = {
        control: mean
        for control, mean in means.items()
        if control.condition != "after" and (not lexical or control.condition in LEXICAL)
    }
    return max(candidates, key=candidates.__getitem__, default=None)


def comparisons(means: Mapping[Control, float]) -> dict[str, tuple[Control, Control]]:
    """What is compared with what, by heading: the refined model with explanations of its figures,
    as far as they were measured.

    Args:
        means: of the metric, over queries and seeds.
    """
    after = Control("after")
    best, without_decoder = strongest(means), strongest(means, lexical=True)
    fixed = [
        ("before", after, Control("before")),
        ("before, less the common mean", after, Control("before", "centred")),
        ("before, less each side's mean", after, Control("before", "by_side")),
        ("before, each side whitened", after, Control("before", "whitened")),
        ("all layers, untouched", after, Control(WHOLE)),
        ("refined on shuffled pairs", after, Control(SHUFFLED)),
    ]
    found = {title: (new, old) for title, new, old in fixed if old in means}
    if without_decoder is not None:
        found["strongest without a decoder"] = (after, without_decoder)
    if best is not None:
        found["strongest of all"] = (after, best)
        found["strongest of all, treated alike"] = (Control("after", best.treatment), best)
    return found


def distinct(compared: Mapping[str, tuple[Control, Control]]) -> list[str]:
    """The headings of different comparisons: the strongest explanation may be one of those that
    are always compared with, and would count twice."""
    headings: dict[tuple[Control, Control], str] = {}
    for title, pair in compared.items():
        headings.setdefault(pair, title)
    return list(headings.values())
