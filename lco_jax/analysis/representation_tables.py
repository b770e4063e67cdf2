"""The numbers of representations in files: a row a layer in CSV, and all that is drawn in JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lco_jax.analysis.representations import Joined, Representations
from lco_jax.runtime.disks import replace_text


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
            for layer in range(model.num_layers)
        ]
        for name, joined in model.pairs.items():
            for layer, layer_gap in enumerate(joined.gaps):
                place = {"model": model.name, "pairs": name, "layer": layer}
                values = {name: line[layer] for name, line in joined.alignment.values.items()}
                alignment.append({**place, **values})
                gap.append({**place, **asdict(layer_gap)})
    for name, rows in (("spread", spread), ("alignment", alignment), ("gap", gap)):
        _write_csv(folder / f"{name}.csv", rows)
    text = json.dumps(
        _finite({"models": [_record(model) for model in models]}),
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )
    replace_text(folder / "analysis.json", text + "\n")


def chance(joined: Joined) -> float:
    """The `mutual_knn` of independent spaces."""
    return joined.alignment.k / (joined.alignment.num_items - 1)


def _record(model: Representations) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.model,
        "stage": model.stage,
        "spread": model.spread,
        "cosines": {
            name: {"edges": found.edges.tolist(), "density": found.density.tolist()}
            for name, found in model.cosines.items()
        },
        "pairs": {name: _record_pairs(joined) for name, joined in model.pairs.items()},
    }


def _record_pairs(joined: Joined) -> dict[str, Any]:
    every, margin = joined.every_layer, joined.alignment.margin
    return {
        "num_pairs": joined.alignment.num_items,
        "k": joined.alignment.k,
        "mutual_knn_chance": chance(joined),
        "mutual_knn_margin": None if margin is None else margin.tolist(),
        "alignment": {name: line.tolist() for name, line in joined.alignment.values.items()},
        "every_layer": every and {name: table.tolist() for name, table in every.values.items()},
        "gap": [asdict(gap) for gap in joined.gaps],
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
