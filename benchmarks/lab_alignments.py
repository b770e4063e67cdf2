"""Trials of alignment alone, for `benchmarks.lab_search`: what its towers say of the media of the
development split, read without a decoder.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from etils import epath

from lco_jax.config import Source, TfdsSource, TrainConfig
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.open import open_model
from lco_jax.lab.lexical import READ_TEXTS, lexical_vectors
from lco_jax.lab.scores import PairSet, direction_scores
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.runtime.mesh import make_mesh
from lco_jax.train.loop import Snapshot
from lco_jax.train.manifest import read_manifest

_MEASURED = {"image": "emoji", "audio": "spoken"}
"""By kind of medium, the dataset whose development split is measured."""


def describe_alignment(run: Path, note: str) -> dict[str, Any]:
    """What a trial trained on, and by direction the MRR of every lookup.

    Raises:
        ValueError: it trained on what it would be measured on.
    """
    config = read_manifest(str(run)).config
    shown = {source.name: source.split for source in map(_dataset, config.data.sources)}
    for name in _MEASURED.values():
        if shown.get(name, "fit") != "fit":
            raise ValueError(
                f"{run} trained on {name} {shown[name]!r}, and is measured on 'dev', which is part "
                "of it; train on 'fit', as configs/quickstart_choices.py does"
            )
    media = replace(config.data.media, audio_features="tokens", image_features="tokens")
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        model = open_model(str(run / "model"), media=media, dtype=config.model.dtype)
    snapshot = Snapshot(0, model.config, model.graph, model.params, model.processor, mesh)
    figures = {}
    for modality, name in _MEASURED.items():
        if name not in shown:
            continue
        pairs = read_pairs(TfdsSource(name, split="dev"), None)
        items = ([pair.anchor for pair in pairs], [pair.positive for pair in pairs])
        found = {
            baseline: EmbeddedPairs(0, *vectors)
            for baseline, vectors in lexical_vectors(*items, snapshot).items()
        }
        for direction, scores in direction_scores(
            PairSet(modality, epath.Path(run), [], found)
        ).items():
            figures[direction] = {
                " ".join(control): float(one["mrr"].mean()) for control, one in scores.items()
            }
    return {
        "name": run.parent.name if run.name == "align" else run.name,
        "settings": _settings(config),
        "note": note,
        "lookups": figures,
    }


def _dataset(source: Source) -> TfdsSource:
    assert isinstance(source, TfdsSource)
    return source


def _settings(config: TrainConfig) -> dict[str, Any]:
    weights: dict[str, float] = {}
    for source in map(_dataset, config.data.sources):
        weights[source.name] = weights.get(source.name, 0) + source.weight
    return {
        "steps": config.num_steps,
        "peak_lr": config.optimizer.peak_lr,
        "image_px": round(config.data.media.image_max_pixels**0.5),
        "batch": weights,
    }


def row(trial: dict[str, Any], directions: tuple[str, ...]) -> list[str]:
    """A row of the table: settings, and by direction the strongest lookup and, in brackets, the
    mean embedding of the text that the decoder would read.
    """
    settings = trial["settings"]
    batch = ", ".join(f"{count:g} {name}" for name, count in settings["batch"].items())
    found = (trial["lookups"].get(direction) for direction in directions)
    cells = (one and f"{max(one.values()):.3f} ({one[f'{READ_TEXTS} raw']:.3f})" for one in found)
    return [
        trial["name"],
        f"{settings['image_px']} px",
        f"{settings['steps']}",
        f"{settings['peak_lr']:g}",
        batch,
        *(cell or "" for cell in cells),
    ]
