"""Fetch the quickstart's real weights (SmolLM2-135M) as a hub folder; once, then nothing."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.logging import RichHandler

from lco_jax.data.builders import CACHE
from lco_jax.data.builders.fetch import ensure_smollm2


@dataclass(frozen=True)
class Arguments:
    """Fetch the quickstart's real weights (SmolLM2-135M) as a hub folder; once, then nothing."""

    cache: Path = CACHE
    """Folder for the download and the result, `smollm2-135m`."""


def main() -> int:
    arguments = tyro.cli(Arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    try:
        folder = ensure_smollm2(arguments.cache.expanduser())
    except (OSError, ValueError) as error:
        logging.error(error)
        return 1
    Console(soft_wrap=True).print(f"weights: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
