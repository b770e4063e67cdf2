"""What a text of 20 million characters costs, in the process of the fault runner."""

import resource
import time
from pathlib import Path

from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.records import Item


def encode(folder: Path) -> tuple[int, float, float]:
    """Tokens of a text of 20 million characters, and the seconds and GiB that it takes."""
    prompter = Prompter(folder)
    text = "the quick brown fox jumps over the lazy dog, " * 450_000
    peak, start_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    (encoded,) = prompter.encode([Item(text)])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    return len(encoded.tokens), time.perf_counter() - start_s, used / 2**20


def is_cheap(found: tuple[int, float, float]) -> bool:
    num_tokens, seconds, gibibytes = found
    return 650 <= num_tokens < 700 and seconds < 5 and gibibytes < 0.2
