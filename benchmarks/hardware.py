"""The table of docs/hardware.md and docs/results/hardware.json: what the known models hold.

`python -m benchmarks.hardware`, from the root of the repository, counts the weights of every model
whose sizes are in `lco_jax/models/sizes`, without their files; it takes seconds.
"""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import tyro

from lco_jax.config import Lora
from lco_jax.lab.pages_with_tables import replace_table
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.models.omni import available_towers
from lco_jax.runtime.axes import MESH_AXES
from lco_jax.train.manifest import git_revision

_PAGE = Path("docs/hardware.md")
_RESULTS = Path("docs/results/hardware.json")
_SIZES = Path("lco_jax/models/sizes")
_SAME = {
    "Qwen2.5-Omni-3B": "LCO-Embedding-Omni-3B",
    "Qwen2.5-Omni-7B": "LCO-Embedding-Omni-7B",
    "Qwen3-VL-8B-Instruct": "Qwen3-VL-Embedding-8B",
    "llama3-llava-next-8b-hf": "E5-V",
}
"""Checkpoints of the same sizes."""
_RANK = 64
_BYTES = {"bfloat16": 2, "float32": 4}
_STATE_BYTES = 3 * _BYTES["float32"]
"""Of a trained weight: itself and both moments of AdamW, in float32."""
_HEAD = """| model | parameters | weights in bfloat16 | in float32 | width of vectors | LoRA state |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Held:
    """What a model holds in memory when it embeds, and what training adds."""

    model: str
    parameters: int
    """Towers included, output head left out."""
    bfloat16_bytes: int
    float32_bytes: int
    width: int
    lora_parameters: int
    """Low-rank factors of rank 64 on all maps of the decoder."""
    lora_bytes: int
    """Of the factors and their optimizer state."""


def main() -> None:
    """Count, write the results, put the table into the page."""
    with jax.set_mesh(jax.make_mesh((1, 1, 1), MESH_AXES)):
        models = sorted(map(held, _SIZES.glob("*.json")), key=lambda model: model.parameters)
    record = {"command": "python -m benchmarks.hardware", "revision": git_revision(), "rank": _RANK}
    record["models"] = [asdict(model) for model in models]
    _RESULTS.parent.mkdir(parents=True, exist_ok=True)
    _RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    replace_table(_PAGE, "hardware", "\n".join([_HEAD, *map(_row, models)]))


def held(sizes: Path) -> Held:
    """What the model with these sizes (a `config.json`) holds, on the mesh that is set; nothing is
    allocated.
    """
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(sizes, Path(name) / "config.json")
        config = read_config(Path(name))
    towers = available_towers(config)
    _, trained, weights = build(config, Lora(rank=_RANK), "bfloat16", towers=towers)
    count, factors = _count(weights), _count(trained)
    return Held(
        model=sizes.stem,
        parameters=count,
        bfloat16_bytes=count * _BYTES["bfloat16"],
        float32_bytes=count * _BYTES["float32"],
        width=config.text.hidden_size,
        lora_parameters=factors,
        lora_bytes=factors * _STATE_BYTES,
    )


def _count(shapes) -> int:
    return sum(x.size for x in jax.tree.leaves(shapes))


def _row(model: Held) -> str:
    names = ", ".join(filter(None, [model.model, _SAME.get(model.model)]))
    cells = (
        names,
        f"{model.parameters / 1e9:.2f} billion",
        f"{model.bfloat16_bytes / 1e9:.1f} GB",
        f"{model.float32_bytes / 1e9:.1f} GB",
        f"{model.width:,}",
        f"{model.lora_bytes / 1e9:.1f} GB",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    tyro.cli(main)
