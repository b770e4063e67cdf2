"""SeaDoc in small: three arms of two stages each, measured into one table."""

import dataclasses
import json
import logging
import signal
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lco_jax.config import OptimizerConfig, Stage, Stages
from lco_jax.embed.embedder import Embedder
from lco_jax.lab.arms_table import Arm, arms_table, differences_table
from lco_jax.lab.offline_tasks import offline_tasks
from lco_jax.lab.pages import page_task
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.runtime.disks import replace_text
from lco_jax.train.manifest import read_manifest
from lco_jax.train.metrics import read_metrics
from lco_jax.train.stages import train_stages

log = logging.getLogger(__name__)

_STAGES = ("before", "after")
_TASKS = {
    "LibreOfficePages-id": "Indonesian, held-out pages",
    "LibreOfficePages-vi": "Vietnamese, held-out language",
    "LibreOfficePages-km": "Khmer, held-out language",
    "EmojiPicturesT2I-en": "emoji by name",
    "LibreOfficePages-id-text": "Indonesian, text in place of images",
}
_LOSS_STEPS = 5
"""At either end of the generative stage."""


@dataclass(frozen=True)
class Settings:
    """What the arms are run and measured with."""

    workdir: Path
    """Folder of the runs, `ARM/read` and `ARM/refine`."""
    output: Path
    """The table; a JSON file with the score of every query lies beside the runs."""
    base: str | None = None
    """Model to start from (None: that of the configs)."""
    read_steps: int | None = None
    """Of the generative stage (None: those of the configs)."""
    refine_steps: int | None = None
    """Of the contrastive stage (None: those of the configs)."""
    max_pages: int | None = 64
    """Held-out pages of each language."""


def run_arms(arms: Mapping[str, Stages], settings: Settings) -> signal.Signals | None:
    """Run and measure what is missing and write the table, unless a signal stops it.

    Raises:
        FileNotFoundError: the model to start from is not there.
    """
    results = {}
    for arm, config in arms.items():
        ended = train_stages(_with_settings(config, settings), str(settings.workdir / arm))
        stopped = ended[-1].result.stopped_by if ended[-1].result else None
        if stopped is not None:
            log.info("stopped in %s; run again to go on", ended[-1].workdir)
            return stopped
        results[arm] = _measure(arm, settings)
    _write(results, settings)
    log.info("table: %s", settings.output)
    return None


def _with_settings(config: Stages, settings: Settings) -> Stages:
    read, refine = config.stages
    model = read.config.model
    path = settings.base or model.path
    if not Path(path).exists():
        raise FileNotFoundError(
            f"{path} is not there; make it with `python launch/fetch.py --omni`, or give a hub "
            "folder with --base"
        )
    changed = (
        dataclasses.replace(
            stage.config,
            num_steps=steps or stage.config.num_steps,
            optimizer=_warmed_up_within(stage.config.optimizer, steps),
            **({"model": dataclasses.replace(model, path=path)} if stage is read else {}),
        )
        for stage, steps in ((read, settings.read_steps), (refine, settings.refine_steps))
    )
    return Stages(tuple(Stage(s.name, c) for s, c in zip((read, refine), changed, strict=True)))


def _warmed_up_within(optimizer: OptimizerConfig, num_steps: int | None) -> OptimizerConfig:
    if num_steps is None or optimizer.warmup_steps <= num_steps:
        return optimizer
    return dataclasses.replace(optimizer, warmup_steps=num_steps)


def _measure(arm: str, settings: Settings) -> dict[str, Any]:
    """nDCG@10 of every query after both stages; kept in the folder of the arm."""
    folder = settings.workdir / arm
    scores = {}
    for stage, when in zip(("read", "refine"), _STAGES, strict=True):
        file = folder / f"scores_{stage}.json"
        record = json.loads(file.read_text()) if file.exists() else {}
        if record.get("max_pages") != settings.max_pages:
            record = {"max_pages": settings.max_pages, **_score(folder / stage, settings)}
            replace_text(file, json.dumps(record) + "\n")
        scores[when] = record["raw"]
        if when == "before":
            scores["centred"] = record["centred"]
    steps = [m for m in read_metrics(folder / "read" / "metrics.jsonl") if m["kind"] == "train"]
    losses = [m["loss"] for m in steps]
    ends = (losses[:_LOSS_STEPS], losses[-_LOSS_STEPS:])
    return {**scores, "losses": [statistics.fmean(part) for part in ends], "steps": len(losses)}


def _score(run: Path, settings: Settings) -> dict[str, Any]:
    media = settings.workdir / "media"
    emoji = offline_tasks(media)["EmojiPicturesT2I-en"]
    embedder = Embedder(run / "model")
    found: dict[str, dict[str, list[float]]] = {"raw": {}, "centred": {}}
    for name in _TASKS:
        if name == emoji.name:
            task = emoji
        else:
            source = name.removesuffix("-text")
            options = {"max_pages": settings.max_pages, "as_text": source != name}
            task = page_task(source, media, **options)
        vectors = embedder.encode(task.items)
        pairs = EmbeddedPairs(0, *np.split(vectors, [len(task.queries)]))
        for kind, chosen in (("raw", pairs), ("centred", pairs.centred())):
            found[kind][name] = chosen.scores()["ndcg@10"].tolist()
        log.info("%s, %s: nDCG@10 %.3f", run, name, np.mean(found["raw"][name]))
    return found


def _write(results: dict[str, dict[str, Any]], settings: Settings) -> None:
    def arrays(scores: dict[str, list[float]]) -> dict[str, np.ndarray]:
        return {name: np.array(values) for name, values in scores.items()}

    arms = [
        Arm(
            name.replace("_", " + "),
            *(arrays(result[part]) for part in (*_STAGES, "centred")),
            losses=tuple(result["losses"]),
        )
        for name, result in results.items()
    ]
    folder = settings.workdir / next(iter(results))
    read, refine = (read_manifest(str(folder / stage)).config for stage in ("read", "refine"))
    manifest = json.loads((folder / "read" / "config.json").read_text())
    text = _PAGE.format(
        table=arms_table(arms, _TASKS),
        differences=differences_table(arms, _TASKS),
        read_steps=read.num_steps,
        pages=read.data.batch_size // len(read.data.sources),
        layers=read.model.num_layers,
        base=Path(read.model.path).name,
        response_tokens=read.objective.max_response_tokens,
        refine_steps=refine.num_steps,
        triplets=refine.data.batch_size,
        revision=manifest["git_revision"],
        devices=manifest["devices"],
        versions=", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    )
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    replace_text(settings.output, text)
    replace_text(settings.workdir / "seadoc_small.json", json.dumps(results) + "\n")


_PAGE = """\
# SeaDoc in small

Made by `python launch/seadoc.py`: the paper's three arms on LibreOffice's help. A document is the
image of a page, its query the English title. The generative stage sees Indonesian pages;
Vietnamese and Khmer ones are held out as languages, and no test page was seen in any language.

* **low**: pages of 25 tokens (70 x 70 pixels): little more than titles can be made out.
* **high**: pages of 100 tokens (140 x 140 pixels), on which all text can be read.
* **high + captions**: as high, and as many images of emoji with their names.

Generative stage: {read_steps} steps of {pages} pages, of whose text the first {response_tokens}
tokens are learned, by the vision tower, the projector and low-rank factors of the first {layers}
layers of the decoder. It starts from `{base}`; in `lab-omni`, the default, the decoder is
SmolLM2-135M and the vision tower has random weights. Contrastive stage: {refine_steps} steps of
{triplets} WordNet triplets, text only.

nDCG@10 in percent, with 95 % bootstrap intervals over queries; one seed. Loss is in nats per token,
over the first and the last five steps of the generative stage (captions count in the last arm).

{table}
Paired differences:

{differences}
Revision {revision}; {devices}; {versions}.
"""
