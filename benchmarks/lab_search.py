"""docs/lab/search.json and search.md: what was tried for the quickstart, and what it found on the
development split; run from the root of the repository.

`python -m benchmarks.lab_search RUN …` adds the run folders of refinements or alignments that have
ended, each under its folder's name (`NAME/align`: under NAME), and writes the tables; without
folders it only writes the tables.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from etils import epath

from benchmarks.lab_alignments import describe_alignment, row
from lco_jax.config import Alignment, TfdsSource, TrainConfig
from lco_jax.lab.conditions import Control, strongest
from lco_jax.lab.markdown import markdown_table
from lco_jax.lab.scores import direction_scores, read_curves, read_pair_sets
from lco_jax.metrics.comparison import bootstrap_interval
from lco_jax.train.manifest import read_manifest

_LEXICAL = "features"
"""The baseline: mean features and mean token embeddings, raw or centred."""
_DIRECTIONS = ("text->text", "image->text", "text->image", "audio->text", "text->audio")
_MEDIA_DIRECTIONS = _DIRECTIONS[1:]
_TITLE = """# What was tried for the quickstart

Made by `python -m benchmarks.lab_search` from `search.json`. MRR after the text-only stage, one
seed, on 200 emoji and 60 recordings held out of the training data, not on the test split. Texts of
r1 and r2 are those of the test split of WordNet; nothing was chosen by them. In brackets: the
lexical baseline of the same towers (mean features against mean token embeddings, the better of raw
and centred), and the 95 % paired interval over queries of the difference to it, where computed.
Machines were shared, so seconds are no measure of cost.
"""
_ALIGNMENTS = """## Alignment alone

What the towers say, read without a decoder, on the same splits: the strongest lookup (of four, each
also centred and whitened, chosen on these pairs), and in brackets the mean embedding of the text
that the decoder reads in place of the medium. A refined decoder reads no more than that.
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
        trial = _describe(run, arguments.note)
        trials[trial["name"]] = trial
    file.write_text(json.dumps([*trials.values()], indent=1, ensure_ascii=False) + "\n")
    file.with_suffix(".md").write_text(render(list(trials.values())))


def _describe(run: Path, note: str) -> dict[str, Any]:
    config = read_manifest(str(run)).config
    if isinstance(config.objective, Alignment):
        return describe_alignment(run, note)
    (curve,) = read_curves({run.name: epath.Path(run)})
    figures = {}
    for pairs in read_pair_sets(epath.Path(run)):
        for direction, found in direction_scores(pairs).items():
            scores = {
                control: metrics["mrr"]
                for control, metrics in found.items()
                if control.treatment in ("raw", "centred")
            }
            means = {control: float(values.mean()) for control, values in scores.items()}
            figures[direction] = {" ".join(control): mean for control, mean in means.items()}
            best = strongest(
                {one: mean for one, mean in means.items() if one.condition == _LEXICAL},
                lexical=True,
            )
            if best is not None:
                difference = scores[Control("after")] - scores[best]
                figures[direction] |= {
                    "lexical": means[best],
                    "over_lexical": bootstrap_interval(difference),
                }
    return {
        "name": run.name,
        "settings": _settings(config),
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
        "layers": config.model.num_layers or "all",
        "steps": config.num_steps,
        "batch": config.data.batch_size,
        "peak_lr": config.optimizer.peak_lr,
        "sources": sources,
    }


def render(trials: list[dict[str, Any]]) -> str:
    """The page: a table with a row for each refinement, one for each alignment, and notes below
    each.
    """
    refinements = [trial for trial in trials if "mrr" in trial]
    alignments = [trial for trial in trials if "lookups" in trial]
    head = ("trial", "layers", "steps x batch", "lr", "texts", *_DIRECTIONS)
    parts = [_TITLE, markdown_table(head, [*map(_row, refinements)]), _notes(refinements)]
    if alignments:
        head = ("trial", "images", "steps", "lr", "in a batch", *_MEDIA_DIRECTIONS)
        rows = [row(trial, _MEDIA_DIRECTIONS) for trial in alignments]
        parts += [_ALIGNMENTS, markdown_table(head, rows), _notes(alignments)]
    return "\n".join(filter(None, parts))


def _row(trial: dict[str, Any]) -> list[str]:
    settings = trial["settings"]
    return [
        trial["name"],
        str(settings["layers"]),
        f"{settings['steps']} x {settings['batch']}",
        f"{settings['peak_lr']:g}",
        ", ".join(f"{name} {share:.2g}" for name, share in settings["sources"].items()),
        *(_cell(trial["mrr"].get(direction)) for direction in _DIRECTIONS),
    ]


def _notes(trials: list[dict[str, Any]]) -> str:
    return "".join(f"* {trial['name']}: {trial['note']}\n" for trial in trials if trial["note"])


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    cell = f"{found['after raw']:.3f}"
    if "lexical" in found:
        cell += f" ({found['lexical']:.3f}"
        if "over_lexical" in found:
            low, high = found["over_lexical"]
            cell += f"; {low:+.3f} to {high:+.3f}"
        cell += ")"
    return cell


if __name__ == "__main__":
    main()
