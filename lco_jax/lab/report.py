"""The report of a job of several stages that ends with refinement by text: one page with figures,
tables, images and audio inside it, and the same numbers as JSON.
"""

import base64
import json
import mimetypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup

from lco_jax.lab.conditions import CONDITIONS, EXPLAINED, SHUFFLED, TREATMENTS, Control
from lco_jax.lab.scores import PairSet, read_curves, read_pair_sets, score, turned
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.report import figures
from lco_jax.report.page import render, write_whole

SAMPLES_FILE = "samples.json"
"""In the folder of the job: prompts and what the model answered."""
_TYPES = {"image": "image/png", "audio": "audio/ogg"}
"""Of prepared datasets; other kinds are guessed from the name."""
_NUM_QUERIES = 4
_NUM_FOUND = 3


def write_lab_report(workdir: str, stages: Sequence[str]) -> epath.Path:
    """Write `report/index.html` and `report/report.json` in the folder of the job.

    Args:
        stages: names of the stages; the last one was evaluated before and after.

    Raises:
        ValueError: the last stage has no two evaluations.
    """
    root = epath.Path(workdir)
    folders = {name: root / name for name in stages}
    last = folders[stages[-1]]
    shuffled = root / SHUFFLED
    curves = read_curves(folders)
    sets = read_pair_sets(last, shuffled if shuffled.exists() else None)
    if not sets:
        raise ValueError(f"{last} has no two evaluations to compare; set its evaluation")
    manifests = {
        name: json.loads((folder / "config.json").read_text()) for name, folder in folders.items()
    }
    manifest = manifests[stages[-1]]
    samples = _read_samples(root)
    numbers = score(curves, sets) | {
        "samples": [{key: sample[key] for key in ("prompt", "expected", "response")}
                    for sample in samples],
        "settings": {name: found["config"] for name, found in manifests.items()},
        "versions": manifest["versions"],
        "git_revision": manifest["git_revision"],
        "devices": manifest["devices"],
    }  # fmt: skip
    page = render(
        "lab_report.html.j2",
        room="lab",
        name=root.name,
        numbers=numbers,
        curves=Markup(figures.stage_losses({curve.name: curve.train for curve in curves})),
        titles=_titles(numbers["controls"]),
        explained=_explained(numbers["controls"]),
        gallery=[_gallery(pairs) for pairs in sets],
        samples=samples,
        manifest=manifest,
        settings=json.dumps(numbers["settings"], indent=2, ensure_ascii=False),
    )
    folder = root / "report"
    write_whole(folder / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def _titles(controls: dict[str, dict[str, Any]]) -> list[str]:
    """Of the conditions and treatments that some direction has, in order."""
    titles = [Control(one, treatment).title for one in CONDITIONS for treatment in TREATMENTS]
    return [title for title in titles if any(title in found for found in controls.values())]


def _explained(controls: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By title, what the conditions in the table are."""
    shown = _titles(controls)
    return {title: EXPLAINED[one] for one, title in CONDITIONS.items() if title in shown}


def _gallery(pairs: PairSet) -> dict[str, Any]:
    """A few texts, drawn with a fixed seed, and what they find before and after."""
    evaluations = tuple(pairs.evaluations[name] for name in ("before", "after"))
    if pairs.modality != "text":
        evaluations = tuple(map(turned, evaluations))
    drawn = np.random.default_rng(0).permutation(len(pairs.lines))[:_NUM_QUERIES].tolist()
    query = "anchor" if pairs.modality == "text" else "positive"
    return {
        "modality": pairs.modality,
        "queries": [
            {
                "text": pairs.lines[number][query],
                "wanted": _shown(pairs, number),
                "found": [_found(pairs, evaluation, number) for evaluation in evaluations],
            }
            for number in drawn
        ],
    }


def _found(pairs: PairSet, evaluation: EmbeddedPairs, query: int) -> dict[str, Any]:
    cosines = evaluation.anchors[query] @ evaluation.positives.T
    best = np.argsort(-cosines, kind="stable")[:_NUM_FOUND].tolist()
    return {
        "rank": f"{evaluation.ranks().expected[query]:g}",
        "items": [{**_shown(pairs, index), "correct": index == query} for index in best],
    }


def _shown(pairs: PairSet, number: int) -> dict[str, str]:
    """A found item: its text, or its medium as a data URI with the text that names it."""
    line = pairs.lines[number]
    shown = {"text": line["positive"], "kind": pairs.modality}
    if pairs.modality in line:
        file = pairs.folder / line[pairs.modality]
        known = mimetypes.guess_type(file.name)[0] or _TYPES[pairs.modality]
        shown["uri"] = _data_uri(known, file.read_bytes())
    return shown


def _read_samples(root: epath.Path) -> list[dict[str, Any]]:
    file = root / SAMPLES_FILE
    if not file.exists():
        return []
    samples = json.loads(file.read_text())
    for sample in samples:
        content = base64.b64decode(sample.pop("medium"))
        sample["uri"] = _data_uri(_TYPES[sample["kind"]], content)
    return samples


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
