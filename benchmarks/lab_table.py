"""docs/lab/tables.md: jobs of the lab (`configs/quickstart.py`, `lab_full.py`, `lab_full_lora.py`),
several seeds and arms together; run from the root of the repository.

`python -m benchmarks.lab_table WORKDIR …` reads jobs that have ended. With `--seen N` it also
embeds N pictures and N sounds of the training data before and after the last stage: minutes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from lco_jax.config import TfdsSource
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.embedder import Embedder
from lco_jax.lab.scores import PairSet, direction_scores
from lco_jax.lab.seeds import (
    CONDITIONS,
    LabRun,
    anisotropy_table,
    changes_table,
    read_run,
    retrieval_table,
    stages_table,
)
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.report.markdown import markdown_table
from lco_jax.train.stages import MODEL_FOLDER

_STAGES = ("align", "speak", "refine")
_CONDITIONS = ("before", "centred_before", "after", "centred_after")
"""Of seen pairs; their baseline without a decoder is not measured."""
_TITLE = "# The lab in figures\n\nMade by `python -m benchmarks.lab_table`.\n\n"
_SEEN = {"image": "emoji", "audio": "spoken"}
"""Dataset of each medium."""


@dataclass(frozen=True)
class _Arguments:
    """Tables of several jobs of the lab."""

    workdirs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of jobs that have ended."""
    output: Path = Path("docs/lab/tables.md")
    seen: int = 0
    """Pairs of the training data to embed, of each medium, with jobs that keep all layers."""


def main() -> None:
    """Read, measure what is missing, write."""
    arguments = tyro.cli(_Arguments, description=__doc__)
    runs = [read_run(str(folder), _stages(folder)) for folder in arguments.workdirs]
    parts = {
        "Retrieval (MRR) on held-out pairs": retrieval_table(runs),
        "What the text-only stage changes: mean [95 % interval] (each seed)": changes_table(runs),
        "Anisotropy (mean cosine)": anisotropy_table(runs),
    }
    if arguments.seen:
        folders = zip(runs, arguments.workdirs, strict=True)
        rows = [row for run, folder in folders for row in _seen(run, folder, arguments.seen)]
        head = ("arm", "seed", "direction", "n", *(CONDITIONS[name] for name in _CONDITIONS))
        parts["Retrieval (MRR) on pairs seen in training"] = markdown_table(head, rows)
    parts["Stages"] = stages_table(runs)
    body = "\n".join(f"## {title}\n\n{table}" for title, table in parts.items())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(_TITLE + body)


def _stages(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of a job")
    return [name for name in _STAGES if (folder / name).is_dir()]


def _seen(run: LabRun, folder: Path, count: int) -> list[list[str]]:
    rows = []
    *_, before, last = run.configs
    if run.configs[last].model.num_layers is not None:
        return []  # the model before it has all layers, and would be another one
    models = {"before": folder / before / MODEL_FOLDER, "after": folder / last}
    media = run.configs[last].data.media
    examples = {modality: read_pairs(TfdsSource(name), count) for modality, name in _SEEN.items()}
    found: dict[str, dict[str, EmbeddedPairs]] = {modality: {} for modality in _SEEN}
    for when, path in models.items():
        embedder = Embedder(path, media=media, dtype="float32")
        for modality, pairs in examples.items():
            items = [pair.anchor for pair in pairs] + [pair.positive for pair in pairs]
            found[modality][when] = EmbeddedPairs(0, *np.split(embedder.encode(items), 2))
    for modality, both in found.items():
        pairs = PairSet(modality, folder, [], both["before"], both["after"], None)
        for direction, scores in direction_scores(pairs).items():
            means = [f"{scores[name]['mrr'].mean():.3f}" for name in _CONDITIONS]
            size = str(len(examples[modality]))
            rows.append([run.arm, str(run.seed), direction, size, *means])
    return rows


if __name__ == "__main__":
    main()
