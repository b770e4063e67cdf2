"""The command line of `launch/seadoc.py`."""

from dataclasses import dataclass
from pathlib import Path

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.configs import CONFIGS, load_config
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse

_ARMS = ("low", "high", "high_captions")


@dataclass(frozen=True)
class _Arguments(Compilations):
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


_EXAMPLES = ("", "--arms low high --max-pages 16")


@program
def main() -> int:
    """Parse, run what is missing, measure, write the table."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    unknown = set(arguments.arms) - set(_ARMS)
    if unknown:
        raise ValueError(f"arms {sorted(unknown)} are unknown; use some of {_ARMS}")
    arguments.keep_compilations()

    from lco_jax.lab.seadoc_arms import Settings, run_arms

    arms = {arm: load_config(CONFIGS / f"seadoc_small_{arm}.py") for arm in arguments.arms}
    settings = Settings(
        workdir=arguments.workdir,
        output=arguments.output,
        base=arguments.base,
        read_steps=arguments.read_steps,
        refine_steps=arguments.refine_steps,
        max_pages=arguments.max_pages,
    )
    stopped = run_arms(arms, settings)
    return DONE if stopped is None else 128 + stopped
