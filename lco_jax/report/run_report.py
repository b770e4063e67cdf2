"""The report of a run: one self-contained HTML page, made from nothing but the run's files."""

import io
import json
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup

from lco_jax.config.io import from_json
from lco_jax.metrics.comparison import EmbeddedPairs, bootstrap_interval
from lco_jax.metrics.retrieval import chance
from lco_jax.report import figures
from lco_jax.report.page import render, write_whole
from lco_jax.report.wording import trainable_in_words
from lco_jax.train.manifest import is_run_folder
from lco_jax.train.metrics import read_metrics

_METRICS = {
    "recall@1": "Recall@1",
    "recall@10": "Recall@10",
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "mean_cosine": "Mean cosine of two positives",
    "effective_rank": "Effective rank",
}
# What became of a query's top answer, and how many queries of each kind are shown.
_OUTCOMES = {"gained": 3, "lost": 2, "right both times": 1, "wrong both times": 2}
_NUM_EXAMPLES = sum(_OUTCOMES.values())


@dataclass(frozen=True)
class _Run:
    manifest: dict[str, Any]
    train: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    texts: list[dict[str, str]]
    evaluations: list[EmbeddedPairs]
    """The first and the last; fewer if there are fewer."""


@dataclass(frozen=True)
class _Row:
    label: str
    cells: list[str]
    change: str
    interval: str


def write_report(workdir: str) -> epath.Path:
    """Write `report/index.html` of a run folder; sections whose files are missing say so.

    Raises:
        ValueError: `workdir` is no run folder, or its evaluations do not fit its pairs.
    """
    run = _read_run(workdir)
    page = render(
        "report.html.j2",
        name=epath.Path(workdir).name,
        manifest=run.manifest,
        config=run.manifest["config"],
        steps=run.train[-1]["step"] if run.train else 0,
        num_matrix=figures.NUM_MATRIX,
        num_pairs=len(run.evaluations[0].anchors) if run.evaluations else None,
        chance=_chance(run),
        facts=_facts(run),
        figures={name: Markup(svg) for name, svg in _figures(run).items()},
        manifest_json=json.dumps(run.manifest, indent=2, ensure_ascii=False),
        **_comparison(run),
        **_examples(run),
    )
    file = epath.Path(workdir) / "report" / "index.html"
    write_whole(file, page)
    return file


# ---------------------------------------------------------------------------------- reading


def _read_run(workdir: str) -> _Run:
    if not is_run_folder(workdir):
        raise ValueError(f"{workdir} is no run folder: it has no config.json of a run")
    folder = epath.Path(workdir)
    metrics_file, pairs_file = folder / "metrics.jsonl", folder / "evaluations" / "pairs.jsonl"
    records = read_metrics(metrics_file) if metrics_file.exists() else []
    # Not splitlines(), which also splits at the line separators that a text may contain.
    lines = pairs_file.read_text().split("\n") if pairs_file.exists() else []
    texts = [json.loads(line) for line in lines if line]
    # Baselines lie beside what was measured at a step.
    files = [file for file in folder.glob("evaluations/*.npz") if file.stem.isdigit()]
    files.sort(key=lambda file: int(file.stem))
    evaluations = [_read_evaluation(file) for file in _ends(files)]
    for pairs in evaluations:
        if texts and len(pairs.anchors) != len(texts):
            raise ValueError(
                f"{pairs_file.parent}: step {pairs.step} has {len(pairs.anchors)} pairs, but "
                f"pairs.jsonl has {len(texts)} lines; remove the evaluations of another data set"
            )
    return _Run(
        manifest=json.loads((folder / "config.json").read_text()),
        train=[record for record in records if record["kind"] == "train"],
        evals=[record for record in records if record["kind"] == "eval"],
        texts=texts,
        evaluations=evaluations,
    )


def _ends(items: list) -> list:
    return items if len(items) < 2 else [items[0], items[-1]]


def _read_evaluation(file: epath.Path) -> EmbeddedPairs:
    with np.load(io.BytesIO(file.read_bytes())) as arrays:
        return EmbeddedPairs(int(file.stem), arrays["anchors"], arrays["positives"])


# --------------------------------------------------------------------------- before and after


def _comparison(run: _Run) -> dict[str, Any]:
    """The table of metrics: from the vectors if there are any, else as they were logged."""
    scores = [pairs.scores() for pairs in run.evaluations]
    if run.evaluations:
        measured = [
            {**_means(terms), **pairs.spread()}
            for terms, pairs in zip(scores, run.evaluations, strict=True)
        ]
        steps = [pairs.step for pairs in run.evaluations]
    else:
        measured = _ends(run.evals)
        steps = [record["step"] for record in measured]
    titles = _titles(steps)
    columns = dict(zip(titles, measured, strict=True))
    if run.evaluations:
        first = run.evaluations[0]
        controls = {
            "the same, mean removed": _means(first.centred().scores()),
            "the same, each side whitened": _means(first.whitened_by_side().scores()),
        }
        columns = {titles[0]: measured[0], **controls, **columns}

    rows = {}
    for name, label in _METRICS.items():
        if not measured or not all(name in values for values in measured):
            continue
        cells = [_number(name, values.get(name)) for values in columns.values()]
        change = interval = ""
        if len(measured) == 2:
            change = _number(name, measured[1][name] - measured[0][name], "+")
        if len(scores) == 2 and name in scores[0]:
            low, high = bootstrap_interval(scores[1][name] - scores[0][name])
            interval = f"{low:+.3f} to {high:+.3f}"
        rows[name] = _Row(label, cells, change, interval)
    return {"columns": list(columns), "rows": rows, "paired": len(measured) == 2}


def _titles(steps: list[int]) -> list[str]:
    if len(steps) < 2:
        return [f"step {step}" for step in steps]
    return [f"{word} (step {step})" for word, step in zip(("before", "after"), steps, strict=True)]


def _means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in scores.items()}


def _chance(run: _Run) -> str:
    """What a random order scores, in words."""
    if not run.evaluations:
        return ""
    found = chance(len(run.evaluations[0].anchors))
    return ", ".join(f"{_METRICS[name]} {found[name]:.3f}" for name in found if name in _METRICS)


def _number(name: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.1f}" if name == "effective_rank" else f"{value:{sign}.3f}"


def _examples(run: _Run) -> dict[str, Any]:
    """A few queries of every outcome, drawn with a fixed seed, and how many there are of each."""
    if len(run.evaluations) < 2 or not run.texts:
        return {"examples": [], "outcomes": {}}
    ranks = [pairs.ranks().expected for pairs in run.evaluations]
    before, after = (rank <= 1 for rank in ranks)
    kinds = (~before & after, before & ~after, before & after, ~before & ~after)
    rng = np.random.default_rng(0)
    drawn = {
        outcome: rng.permutation(np.flatnonzero(kind))
        for outcome, kind in zip(_OUTCOMES, kinds, strict=True)
    }
    shown = [(outcome, i) for outcome, count in _OUTCOMES.items() for i in drawn[outcome][:count]]
    # Where an outcome is rarer than its share of the table, the others fill the place.
    spare = [(outcome, i) for outcome, count in _OUTCOMES.items() for i in drawn[outcome][count:]]
    fill = rng.permutation(len(spare))[: _NUM_EXAMPLES - len(shown)]
    shown += [spare[position] for position in fill]
    shown.sort(key=lambda item: list(_OUTCOMES).index(item[0]))
    nearest = [pairs.cosines().argmax(axis=1) for pairs in run.evaluations]
    examples = [
        {
            "outcome": outcome,
            "anchor": run.texts[i]["anchor"],
            "positive": run.texts[i]["positive"],
            "answers": [
                {
                    "text": run.texts[best[i]]["positive"],
                    "correct": bool(rank[i] <= 1),
                    "rank": f"{rank[i]:g}",
                }
                for best, rank in zip(nearest, ranks, strict=True)
            ],
        }
        for outcome, i in shown
    ]
    return {"examples": examples, "outcomes": {name: len(items) for name, items in drawn.items()}}


# ------------------------------------------------------------------------ figures and facts


def _figures(run: _Run) -> dict[str, str]:
    drawn = {}
    if run.train:
        drawn["progress"] = figures.progress(run.train, run.evals)
        drawn["vitals"] = figures.vitals(run.train)
    if run.evaluations:
        titles = _titles([pairs.step for pairs in run.evaluations])
        cosines = [pairs.cosines() for pairs in run.evaluations]
        named = dict(zip(titles, cosines, strict=True))
        drawn["cosines"] = figures.cosine_histograms(named)
        drawn["matrices"] = figures.similarity_matrices(named)
    return drawn


def _facts(run: _Run) -> dict[str, str]:
    """What the run was and what it cost, label by label."""
    manifest, config = run.manifest, run.manifest["config"]
    facts = {
        "Model": config["model"]["path"],
        "Trained": trainable_in_words(from_json(config["model"]["trainable"])),
        "Devices": manifest["devices"],
        "Batch": f"{config['data']['batch_size']:,} triplets",
    }
    if run.train:
        facts |= _speed(run.train)
    facts["Code revision"] = manifest["git_revision"] or "unknown"
    facts["Data fingerprint"] = manifest["data_fingerprint"]
    return facts


def _speed(train: list[dict[str, Any]]) -> dict[str, str]:
    last = train[-1]
    steps = np.diff([0, *(record["step"] for record in train)])
    seconds = float(np.dot(steps, [record["step_seconds"] for record in train]))
    wait = statistics.mean(record["input_wait_seconds"] for record in train)
    return {
        "Negatives per anchor": f"{last['negatives_per_anchor']:,.0f}",
        "Steps": f"{last['step']:,} in {_duration(seconds)}",
        "Tokens per second": f"{_median(train, 'tokens_per_second'):,.0f} (median)",
        "Step time": f"{_median(train, 'step_seconds'):.3g} s (median)",
        "Real tokens": f"{statistics.mean(record['real_tokens'] for record in train):.1%} of slots",
        "Waiting for input": f"{1000 * wait:.1f} ms a step (mean)",
        "Programs compiled": f"{last['programs']:.0f}",
    }


def _median(records: list[dict[str, Any]], name: str) -> float:
    return statistics.median(record[name] for record in records)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 2:
        return f"{hours:.1f} hours"
    return f"{minutes:.1f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"
