"""docs/costs.md: what the recipes cost at least; run from the root of the repository.

`python -m benchmarks.cost_table` takes the bound of a step from the rows of docs/plan.md and the
steps from the sizes of the paper's data. It compiles nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lco_jax.cli.configs import find_config, load_config
from lco_jax.config import Stages, TrainConfig
from lco_jax.config.topology import parse_topology

_PLANS, _TABLE = Path("docs/plan.md"), Path("docs/costs.md")
_EXAMPLES = {"all_nli": 276_000, "multimodal": 371_000, "pages": 5_055}
"""Source: LCO-Emb: triplets of the two variants, and pages of SeaDoc."""
_HEADER = """# What the recipes cost

Made by `python -m benchmarks.cost_table` from the rows of [the plans](plan.md). A step takes at
least as long as its plan's bound, and a run that long times its steps; start, evaluations and
checkpoints come on top. Multiply chip-hours by the price of a chip-hour in your region. The data
are the paper's: 276,000 triplets of all-NLI, 371,000 of the multimodal set, 5,055 pages of SeaDoc;
passes over them are the config's. The batch is that of the plans, the same for all recipes of a
contrastive stage; the configs of texts have the paper's, which is smaller and takes more steps.
Milliseconds, minutes and chip-hours are lower bounds.

| config | slice | batch | steps | ms a step | chips | minutes | chip-hours |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Cost:
    """A run at the speed of its plan's bound."""

    steps: int
    milliseconds: float
    """Of a step."""
    chips: int

    @property
    def hours(self) -> float:
        return self.steps * self.milliseconds / 3.6e6

    @property
    def chip_hours(self) -> float:
        return self.hours * self.chips


def chips_of(topology: str, num_slices: int = 1) -> int:
    """How many chips slices such as `v5p:4x4x4` have."""
    return num_slices * parse_topology(topology).chips


def steps_of(config: TrainConfig, kind: str, batch_size: int) -> int:
    """Of a run on the paper's data: whole batches of each pass."""
    return config.num_epochs * (_EXAMPLES[kind] // batch_size)


def read_plans(text: str) -> list[tuple[str, float]]:
    """The options of every plan and the bound of its step in milliseconds."""
    ours = text.partition("\n## ")[0]
    rows = [line.split("|") for line in ours.splitlines() if line.startswith("| `--config ")]
    return [(cells[1].strip(" `"), float(cells[7].replace(",", ""))) for cells in rows]


def cost_of(options: str, milliseconds: float) -> tuple[str, str, int, Cost]:
    """What a plan's row costs: config (and stage), slice, batch and cost."""
    given = dict(re.findall(r"--([\w.-]+) (\S+)", options))
    path, stage = Path(given["config"]), given.get("stage")
    config = load_config(find_config(path))
    if isinstance(config, Stages):
        config = {part.name: part.config for part in config.stages}[stage]
    kind = "pages" if stage else "multimodal" if "multimodal" in path.stem else "all_nli"
    batch = int(given.get("data.batch-size", config.data.batch_size))
    slices = int(given.get("num-slices", 1))
    name = f"{path.stem}, stage {stage}" if stage else path.stem
    chips = chips_of(given["topology"], slices)
    place = given["topology"] if slices == 1 else f"{slices} x {given['topology']}"
    return name, place, batch, Cost(steps_of(config, kind, batch), milliseconds, chips)


def main() -> None:
    """Write the table."""
    lines = []
    for options, milliseconds in read_plans(_PLANS.read_text()):
        name, place, batch, cost = cost_of(options, milliseconds)
        cells = [name, place, f"{batch:,}", f"{cost.steps:,}", f"{milliseconds:,.0f}"]
        cells += [f"{cost.chips}", f"{60 * cost.hours:.1f}", f"{cost.chip_hours:.1f}"]
        lines.append(f"| {' | '.join(cells)} |\n")
    _TABLE.write_text(_HEADER + "".join(lines))


if __name__ == "__main__":
    main()
