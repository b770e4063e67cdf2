"""docs/lab/layers: figures 1 to 3 of the paper for a quickstart that has ended, before and after
its text-only stage.

`python -m benchmarks.lab_layers runs/lab/quick1` embeds the held-out pairs of that job with both
models and takes minutes; `lco analyze` does the same for any models and pairs.
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from etils import epath
from PIL import Image

from lco_jax.cli.analyze import main as analyze
from lco_jax.lab.scores import PairSet, read_pair_sets
from lco_jax.runtime.disks import replace_bytes
from lco_jax.train.stages import MODEL_FOLDER

_PICTURES = ("spread.png", "alignment.png", "cosines.png")
_NUMBERS = "analysis.json"


@dataclass(frozen=True)
class _Arguments:
    """Draw what the layers of a finished quickstart do to held-out pairs."""

    workdir: Annotated[Path, tyro.conf.Positional]
    """Folder of the job."""
    before: str = "align"
    """Stage that left the model before."""
    after: str = "refine"
    """Stage whose model is the one after, and whose held-out pairs are taken."""
    num_pairs: int = 200
    """The first of each kind."""
    k: int = 10
    """Neighbours of an item."""
    output: Path = Path("docs/lab/layers")


def main() -> int:
    """Write the pairs, analyse, keep what the pages show; the exit code."""
    arguments = tyro.cli(_Arguments, description=__doc__)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = write_pairs(arguments.workdir / arguments.after, folder)
        words = (
            *("lco analyze", "--model", arguments.workdir / arguments.after),
            *("--before", arguments.workdir / arguments.before / MODEL_FOLDER),
            *("--pairs", *files, "--num-pairs", arguments.num_pairs, "--k", arguments.k),
            *("--metrics", "mutual_knn", "--output", folder / "found"),
        )
        sys.argv = [*map(str, words)]
        code = analyze()
        if code == 0:
            keep(folder / "found", arguments.output)
    return code


def keep(found: Path, output: Path) -> None:
    """What pages show of the folder of an analysis; pictures with few colours, as they have."""
    output.mkdir(parents=True, exist_ok=True)
    for name in _PICTURES:
        with Image.open(found / name) as picture:
            picture.convert("RGB").quantize(64).save(output / name, optimize=True)
    shutil.copyfile(found / _NUMBERS, output / _NUMBERS)


def write_pairs(run: Path, folder: Path) -> list[Path]:
    """The pairs that a run was evaluated on as JSON Lines, a file of each kind.

    Raises:
        ValueError: it has not been evaluated before and after.
    """
    sets = read_pair_sets(epath.Path(run))
    if not sets:
        raise ValueError(f"{run} has no two evaluations: run it to its end first")
    files = []
    for pairs in sorted(sets, key=lambda pairs: pairs.modality == "text"):  # media first
        files.append(folder / f"{pairs.modality}.jsonl")
        lines = [json.dumps(_pair(pairs, line), ensure_ascii=False) for line in pairs.lines]
        replace_bytes(epath.Path(files[-1]), "".join(f"{line}\n" for line in lines).encode())
    return files


def _pair(pairs: PairSet, line: dict[str, str]) -> dict[str, dict[str, str]]:
    anchor = {"text": line["anchor"]}
    if pairs.modality != "text":
        file = Path(os.fspath(pairs.folder), line[pairs.modality])
        anchor = {f"{pairs.modality}_path": str(file.resolve())}
    return {"anchor": anchor, "positive": {"text": line["positive"]}}


if __name__ == "__main__":
    sys.exit(main())
