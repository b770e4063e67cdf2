"""The command line of `launch/seadoc.py`."""

import dataclasses
import json
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from lco_jax.cli.exits import DONE, program
from lco_jax.cli.train import load_config
from lco_jax.config import Stage, Stages

log = logging.getLogger(__name__)

_ARMS = ("low", "high", "high_captions")
_CONFIGS = Path(__file__).parents[2] / "configs"
_STAGES = ("before", "after")
_TASKS = {
    "LibreOfficePages-id": "Indonesian, held-out pages",
    "LibreOfficePages-vi": "Vietnamese, held-out language",
    "LibreOfficePages-km": "Khmer, held-out language",
    "EmojiPicturesT2I-en": "emoji by name",
    "LibreOfficePages-id-text": "Indonesian, text in place of pictures",
}
_LOSS_STEPS = 5
"""At either end of the generative stage."""


@dataclass(frozen=True)
class _Arguments:
    """SeaDoc in small: three arms of two stages each, then one table of nDCG@10. What is finished
    is not run again."""

    workdir: Path = Path("runs/seadoc_small")
    """Folder of the runs, `ARM/read` and `ARM/refine`."""
    output: Path = Path("docs/seadoc_small.md")
    """The table; a JSON file with the score of every query lies beside the runs."""
    base: str | None = None
    """Model to start from (default: that of the configs)."""
    read_steps: int | None = None
    """Of the generative stage (default: those of the configs)."""
    refine_steps: int | None = None
    """Of the contrastive stage (default: those of the configs)."""
    max_pages: int | None = 64
    """Held-out pages of each language."""
    arms: tuple[str, ...] = _ARMS
    """Which of the arms to run."""
    compilation_cache: str = str(Path("~/.cache/lco_jax/xla").expanduser())
    """Where compiled programs are kept between starts."""


@program
def main() -> int:
    """Run what is missing, measure, write the table."""
    arguments = tyro.cli(_Arguments)
    unknown = set(arguments.arms) - set(_ARMS)
    if unknown:
        raise ValueError(f"arms {sorted(unknown)} are unknown; use some of {_ARMS}")
    jax.config.update("jax_compilation_cache_dir", arguments.compilation_cache)

    from lco_jax.train.stages import train_stages

    results = {}
    for arm in arguments.arms:
        stages = _stages(arm, arguments)
        ended = train_stages(stages, str(arguments.workdir / arm))
        stopped = ended[-1].result.stopped_by if ended[-1].result else None
        if stopped is not None:
            log.info("stopped in %s; run again to go on", ended[-1].workdir)
            return 128 + stopped
        results[arm] = _measure(arm, arguments)
    _write(results, arguments)
    log.info("table: %s", arguments.output)
    return DONE


def _stages(arm: str, arguments: _Arguments) -> Stages:
    """The config of an arm with the settings of the command line."""
    read, refine = load_config(_CONFIGS / f"seadoc_small_{arm}.py").stages
    model = read.config.model
    path = arguments.base or model.path
    if not Path(path).exists():
        raise FileNotFoundError(
            f"{path} is not there; make it with `python launch/fetch.py --omni`, or give a hub "
            "folder with --base"
        )
    changed = (
        dataclasses.replace(
            stage.config,
            num_steps=steps or stage.config.num_steps,
            **({"model": dataclasses.replace(model, path=path)} if stage is read else {}),
        )
        for stage, steps in ((read, arguments.read_steps), (refine, arguments.refine_steps))
    )
    return Stages(tuple(Stage(s.name, c) for s, c in zip((read, refine), changed, strict=True)))


def _measure(arm: str, arguments: _Arguments) -> dict[str, Any]:
    """nDCG@10 of every query after both stages; kept in the folder of the arm."""
    from lco_jax.train.metrics import read_metrics

    folder = arguments.workdir / arm
    scores = {}
    for stage, when in zip(("read", "refine"), _STAGES, strict=True):
        file = folder / f"scores_{stage}.json"
        record = json.loads(file.read_text()) if file.exists() else {}
        if record.get("max_pages") != arguments.max_pages:
            record = {"max_pages": arguments.max_pages, **_score(folder / stage, arguments)}
            file.write_text(json.dumps(record) + "\n")
        scores[when] = record["raw"]
        if when == "before":
            scores["centred"] = record["centred"]
    steps = [m for m in read_metrics(folder / "read" / "metrics.jsonl") if m["kind"] == "train"]
    losses = [m["loss"] for m in steps]
    ends = (losses[:_LOSS_STEPS], losses[-_LOSS_STEPS:])
    return {**scores, "losses": [statistics.fmean(part) for part in ends], "steps": len(losses)}


def _score(run: Path, arguments: _Arguments) -> dict[str, Any]:
    from lco_jax.embed.embedder import Embedder
    from lco_jax.lab.offline_tasks import offline_tasks
    from lco_jax.lab.pages import page_task
    from lco_jax.metrics.comparison import EmbeddedPairs

    media = arguments.workdir / "media"
    emoji = offline_tasks(media)["EmojiPicturesT2I-en"]
    embedder = Embedder(run / "model")
    found: dict[str, dict[str, list[float]]] = {"raw": {}, "centred": {}}
    for name in _TASKS:
        if name == emoji.name:
            task = emoji
        else:
            source = name.removesuffix("-text")
            options = {"max_pages": arguments.max_pages, "as_text": source != name}
            task = page_task(source, media, **options)
        vectors = embedder.encode(task.items)
        pairs = EmbeddedPairs(0, *np.split(vectors, [len(task.queries)]))
        for kind, chosen in (("raw", pairs), ("centred", pairs.centred())):
            found[kind][name] = chosen.scores()["ndcg@10"].tolist()
        log.info("%s, %s: nDCG@10 %.3f", run, name, np.mean(found["raw"][name]))
    return found


def _write(results: dict[str, dict[str, Any]], arguments: _Arguments) -> None:
    from lco_jax.lab.arms_table import Arm, arms_table, differences_table
    from lco_jax.train.manifest import read_manifest

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
    folder = arguments.workdir / arguments.arms[0]
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
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    (arguments.workdir / "seadoc_small.json").write_text(json.dumps(results) + "\n")


_PAGE = """\
# SeaDoc in small

Made by `python launch/seadoc.py`: the paper's three arms on LibreOffice's help. A document is the
picture of a page, its query the English title. The generative stage sees Indonesian pages;
Vietnamese and Khmer ones are held out as languages, and no test page was seen in any language.

* **low**: pages of 25 tokens (70 x 70 pixels): little more than titles can be made out.
* **high**: pages of 100 tokens (140 x 140 pixels), on which all text can be read.
* **high + captions**: as high, and as many pictures of emoji with their names.

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
