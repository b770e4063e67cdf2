"""What a model does to paired items, layer by layer: spread per modality, alignment, gap.

Figure 1 of LCO-Emb is the mean cosine of each modality before and after training, figure 2 the
mutual kNN of each pair of modalities, of models of several sizes; figure 3 sketches what the
distributions of cosines show. `representation_tables` writes all numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lco_jax.analysis.states import LayerEncoder, LayerStates, write_states
from lco_jax.data.records import Item, Triplet
from lco_jax.metrics.anisotropy import cosine_histogram, mean_cosine, mean_cosine_margin
from lco_jax.metrics.kernel_alignment import Alignment, align_layers
from lco_jax.metrics.kernel_metrics import CCA_DIM
from lco_jax.metrics.modality_gap import ModalityGap, modality_gap
from lco_jax.metrics.names import METRICS
from lco_jax.metrics.spectrum import effective_rank, isoscore

log = logging.getLogger(__name__)

SPREAD = {
    "mean_cosine": mean_cosine,
    "effective_rank": effective_rank,
    "isoscore": isoscore,
}
MARGIN = "mean_cosine_margin"
"""Beside the measures of a spread: half of the 95 % interval of `mean_cosine`."""


@dataclass(frozen=True)
class Cosines:
    """The distribution of the cosines of two items of a modality, after the last layer."""

    edges: Float[np.ndarray, "B+1"]
    density: Float[np.ndarray, "B"]


@dataclass(frozen=True)
class Joined:
    """How the two sides of pairs of the same two modalities lie to each other."""

    alignment: Alignment
    """Of anchors and positives, layer by layer."""
    every_layer: Alignment | None
    """Each layer of the anchors with each of the positives."""
    gaps: list[ModalityGap]


@dataclass(frozen=True)
class Representations:
    """One model's numbers; index 0 of a layer axis is the embeddings, the last the output."""

    model: str
    """What a model is called before and after its training."""
    stage: str
    """`before`, `after`, or empty."""
    spread: dict[str, dict[str, list[float]]]
    """By modality and measure, one value a layer."""
    cosines: dict[str, Cosines]
    """By modality."""
    pairs: dict[str, Joined]
    """By the modalities of anchor and positive, as `image-text`."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return " ".join(part for part in (self.model, self.stage) if part)

    @property
    def num_layers(self) -> int:
        """With the embeddings."""
        return len(next(iter(self.pairs.values())).gaps)


def modality(item: Item) -> str:
    """What an item consists of, e.g. `text` or `image+text`."""
    present = {
        "image": bool(item.images),
        "video": bool(item.videos),
        "audio": bool(item.audios),
        "text": bool(item.text.strip()),
    }
    return "+".join(name for name, there in present.items() if there)


def represent(
    model: str,
    stage: str,
    encoder: LayerEncoder,
    pairs: Sequence[Triplet],
    folder: Path,
    *,
    metrics: Sequence[str] = METRICS,
    k: int = 10,
    each_with_each: bool = False,
) -> Representations:
    """Measure a model on the anchors and positives of `pairs`; states are kept in `folder`.

    Pairs of other modalities are compared apart; those of which there are too few for `k` are left
    out, unless there are no others.

    Raises:
        ValueError: too few pairs for `k`, or an item that the model does not take.
    """
    items = {side: [getattr(pair, side) for pair in pairs] for side in ("anchor", "positive")}
    states = {
        side: write_states(encoder, members, folder / side) for side, members in items.items()
    }
    options = {"metrics": metrics, "k": k, "each_with_each": each_with_each}
    spread, cosines = _spread(items, states)
    return Representations(
        model=model,
        stage=stage,
        spread=spread,
        cosines=cosines,
        pairs={
            name: _join(*(_Chosen(side, rows) for side in states.values()), **options)
            for name, rows in _kinds(pairs, k).items()
        },
    )


class _Chosen(Sequence[Float[np.ndarray, "N D"]]):
    """Some items of the states of all layers."""

    def __init__(self, states: LayerStates, rows: list[int]):
        self._states, self._rows = states, rows

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> Float[np.ndarray, "N D"]:
        return self._states[index][self._rows]


def _kinds(pairs: Sequence[Triplet], k: int) -> dict[str, list[int]]:
    """By their two modalities the numbers of the pairs, of kinds that have enough."""
    kinds: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        name = f"{modality(pair.anchor)}-{modality(pair.positive)}"
        kinds.setdefault(name, []).append(index)
    enough = {name: rows for name, rows in kinds.items() if len(rows) > k}
    left_out = [f"{name} ({len(rows)})" for name, rows in kinds.items() if name not in enough]
    if enough and left_out:
        log.warning("too few pairs for %d neighbours, left out: %s", k, ", ".join(left_out))
    return enough or kinds


def _join(
    anchors: Sequence, positives: Sequence, *, metrics: Sequence[str], k: int, each_with_each: bool
) -> Joined:
    # SVCCA needs more items than directions; a small file is compared in fewer.
    count = len(anchors[0])
    options = {"k": k, "cca_dim": min(CCA_DIM, count - 1)}
    return Joined(
        alignment=align_layers(anchors, positives, metrics, **options),
        every_layer=align_layers(anchors, positives, metrics, each_with_each=True, **options)
        if each_with_each
        else None,
        gaps=[modality_gap(anchors[i], positives[i]) for i in range(len(anchors))],
    )


def _spread(
    items: dict[str, list[Item]], states: dict[str, LayerStates]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Cosines]]:
    """The measures of each modality's distinct items, wherever in the pairs they stand, and the
    distribution of their cosines after the last layer."""
    rows: dict[str, dict[str, list[int]]] = {}
    seen = set()
    for side, members in items.items():
        for index, item in enumerate(members):
            content = (item.text, item.images, item.audios, item.videos)
            if content not in seen:
                seen.add(content)
                rows.setdefault(modality(item), {}).setdefault(side, []).append(index)
    measured = {**SPREAD, MARGIN: mean_cosine_margin}
    result = {
        name: {measure: [] for measure in measured}
        for name, places in rows.items()
        if sum(map(len, places.values())) > 1
    }
    cosines = {}
    last = len(states["anchor"]) - 1
    for layer in range(last + 1):
        values = {side: side_states[layer] for side, side_states in states.items()}
        for name, measures in result.items():
            vectors = np.concatenate([values[side][own] for side, own in rows[name].items()])
            for measure, of in measured.items():
                measures[measure].append(of(vectors))
            if layer == last:
                cosines[name] = Cosines(*cosine_histogram(vectors))
    return result, cosines
