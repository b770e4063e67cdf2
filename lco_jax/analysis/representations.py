"""What a model does to paired items, layer by layer: spread per modality, alignment, gap.

Figures 1 and 2 of LCO-Emb are `spread` and `alignment` of a model before and after training.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lco_jax.analysis.states import LayerEncoder, LayerStates, write_states
from lco_jax.data.records import Item, Triplet
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.kernel_alignment import Alignment, align_layers
from lco_jax.metrics.kernel_metrics import CCA_DIM
from lco_jax.metrics.modality_gap import ModalityGap, modality_gap
from lco_jax.metrics.names import METRICS
from lco_jax.metrics.spectrum import effective_rank, isoscore
from lco_jax.runtime.disks import replace_text

SPREAD = {"mean_cosine": mean_cosine, "effective_rank": effective_rank, "isoscore": isoscore}


@dataclass(frozen=True)
class Representations:
    """One model's numbers; index 0 of a layer axis is the embeddings, the last the output."""

    name: str
    spread: dict[str, dict[str, list[float]]]
    """By modality and measure, one value a layer."""
    alignment: Alignment
    """Of anchors and positives, layer by layer."""
    every_layer: Alignment | None
    """Each layer of the anchors with each of the positives."""
    gaps: list[ModalityGap]


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
    name: str,
    encoder: LayerEncoder,
    pairs: Sequence[Triplet],
    folder: Path,
    *,
    metrics: Sequence[str] = METRICS,
    k: int = 10,
    each_with_each: bool = False,
) -> Representations:
    """Measure a model on the anchors and positives of `pairs`; states are kept in `folder`.

    Raises:
        ValueError: too few pairs for `k`, or an item that the model does not take.
    """
    items = {side: [getattr(pair, side) for pair in pairs] for side in ("anchor", "positive")}
    states = {
        side: write_states(encoder, members, folder / side) for side, members in items.items()
    }
    anchors, positives = states.values()
    # SVCCA needs more items than directions; a small file is compared in fewer.
    options = {"k": k, "cca_dim": min(CCA_DIM, len(pairs) - 1)}
    return Representations(
        name=name,
        spread=_spread(items, states),
        alignment=align_layers(anchors, positives, metrics, **options),
        every_layer=align_layers(anchors, positives, metrics, each_with_each=True, **options)
        if each_with_each
        else None,
        gaps=[modality_gap(anchors[i], positives[i]) for i in range(len(anchors))],
    )


def _spread(
    items: dict[str, list[Item]], states: dict[str, LayerStates]
) -> dict[str, dict[str, list[float]]]:
    """The measures of each modality's distinct items, wherever in the pairs they stand."""
    rows: dict[str, dict[str, list[int]]] = {}
    seen = set()
    for side, members in items.items():
        for index, item in enumerate(members):
            content = (item.text, item.images, item.audios, item.videos)
            if content not in seen:
                seen.add(content)
                rows.setdefault(modality(item), {}).setdefault(side, []).append(index)
    result = {
        name: {measure: [] for measure in SPREAD}
        for name, places in rows.items()
        if sum(map(len, places.values())) > 1
    }
    for layer in range(len(states["anchor"])):
        values = {side: side_states[layer] for side, side_states in states.items()}
        for name, measures in result.items():
            vectors = np.concatenate([values[side][own] for side, own in rows[name].items()])
            for measure, of in SPREAD.items():
                measures[measure].append(of(vectors))
    return result


# ------------------------------------------------------------------------------------- tables


def write_tables(models: Sequence[Representations], folder: Path) -> None:
    """Write `spread.csv`, `alignment.csv`, `gap.csv` (one row a layer) and `analysis.json`."""
    spread, alignment, gap = [], [], []
    for model in models:
        spread += [
            {
                "model": model.name,
                "modality": name,
                "layer": layer,
                **{measure: values[layer] for measure, values in measures.items()},
            }
            for name, measures in model.spread.items()
            for layer in range(len(model.gaps))
        ]
        for layer, layer_gap in enumerate(model.gaps):
            place = {"model": model.name, "layer": layer}
            values = {name: line[layer] for name, line in model.alignment.values.items()}
            alignment.append({**place, **values})
            gap.append({**place, **asdict(layer_gap)})
    for name, rows in (("spread", spread), ("alignment", alignment), ("gap", gap)):
        _write_csv(folder / f"{name}.csv", rows)
    content = {
        "num_pairs": models[0].alignment.num_items,
        "k": models[0].alignment.k,
        "models": [_record(model) for model in models],
    }
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(folder / "analysis.json", text + "\n")


def _record(model: Representations) -> dict[str, Any]:
    every = model.every_layer
    return {
        "name": model.name,
        "spread": model.spread,
        "alignment": {name: line.tolist() for name, line in model.alignment.values.items()},
        "every_layer": every and {name: table.tolist() for name, table in every.values.items()},
        "gap": [asdict(gap) for gap in model.gaps],
    }


def _write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    replace_text(file, stream.getvalue())


def _finite(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
