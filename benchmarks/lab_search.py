"""docs/lab/search.json and search.md: what was tried for the quickstart, and what it found on the
development split; run from the root of the repository.

`python -m benchmarks.lab_search RUN …` adds the run folders of refinements that have ended, each
under its folder's name, and writes the table; without folders it only writes the table.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from etils import epath

from lco_jax.config import TfdsSource, TrainConfig
from lco_jax.lab.markdown import markdown_table
from lco_jax.lab.scores import direction_scores, read_curves, read_pair_sets
from lco_jax.metrics.comparison import bootstrap_interval
from lco_jax.train.manifest import read_manifest

_LEXICAL = ("lexical", "lexical_centred")
_DIRECTIONS = ("text->text", "image->text", "text->image", "audio->text", "text->audio")
_TITLE = """# What was tried for the quickstart

Made by `python -m benchmarks.lab_search` from `search.json`. MRR after the text-only stage, one
seed, on 200 emoji, 60 recordings and 200 texts held out of the training data, never on the test
split. In brackets: the better of the two lexical baselines (raw, centred) of the same towers, and
the 95 % paired interval over queries of the difference to it.
"""


@dataclass(frozen=True)
class _Arguments:
    """A table of trials."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders to add; one of the same name is replaced."""
    note: str = ""
    """What is to be known of them besides their settings."""
    trials: Path = Path("docs/lab/search.json")


def main() -> None:
    """Read, add, write."""
    arguments = tyro.cli(_Arguments, description=__doc__)
    file = arguments.trials
    trials = {one["name"]: one for one in (json.loads(file.read_text()) if file.exists() else [])}
    for run in arguments.runs:
        trials[run.name] = _describe(run, arguments.note)
    file.write_text(json.dumps([*trials.values()], indent=1, ensure_ascii=False) + "\n")
    file.with_suffix(".md").write_text(render(list(trials.values())))


def _describe(run: Path, note: str) -> dict[str, Any]:
    (curve,) = read_curves({run.name: epath.Path(run)})
    figures = {}
    for pairs in read_pair_sets(epath.Path(run)):
        for direction, found in direction_scores(pairs).items():
            scores = {name: metrics["mrr"] for name, metrics in found.items()}
            figures[direction] = {name: float(values.mean()) for name, values in scores.items()}
            baselines = [name for name in _LEXICAL if name in scores]
            if baselines:
                best = max(baselines, key=lambda name: scores[name].mean())
                figures[direction]["over_lexical"] = bootstrap_interval(
                    scores["after"] - scores[best]
                )
    return {
        "name": run.name,
        "settings": _settings(read_manifest(str(run)).config),
        "note": note,
        "seconds_of_steps": round(curve.summary()["seconds"]),
        "mrr": figures,
    }


def _settings(config: TrainConfig) -> dict[str, Any]:
    sources = {}
    for source in config.data.sources:
        assert isinstance(source, TfdsSource)
        sources[":".join(filter(None, (source.name, source.misread)))] = source.weight
    return {
        "layers": config.model.num_layers,
        "steps": config.num_steps,
        "batch": config.data.batch_size,
        "peak_lr": config.optimizer.peak_lr,
        "sources": sources,
    }


def render(trials: list[dict[str, Any]]) -> str:
    """The page: a table with a row for each trial, and notes below it."""
    head = ("trial", "layers", "steps x batch", "lr", "texts", *_DIRECTIONS)
    rows = [
        [
            trial["name"],
            str(trial["settings"]["layers"]),
            f"{trial['settings']['steps']} x {trial['settings']['batch']}",
            f"{trial['settings']['peak_lr']:g}",
            ", ".join(
                f"{name} {share:.2g}" for name, share in trial["settings"]["sources"].items()
            ),
            *(_cell(trial["mrr"].get(direction)) for direction in _DIRECTIONS),
        ]
        for trial in trials
    ]
    notes = [f"* {trial['name']}: {trial['note']}\n" for trial in trials if trial["note"]]
    return "\n".join(filter(None, (_TITLE, markdown_table(head, rows), "".join(notes))))


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    cell = f"{found['after']:.3f}"
    if "over_lexical" in found:
        low, high = found["over_lexical"]
        cell += f" ({max(found[name] for name in _LEXICAL):.3f}; {low:+.3f} to {high:+.3f})"
    return cell


if __name__ == "__main__":
    main()
