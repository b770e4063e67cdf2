"""What the fault runner itself is tried on."""

import os
import signal
import time
from pathlib import Path


def read(path: Path) -> str:
    return path.read_text()


def have_a_bug(path: Path) -> str:
    return {}[path]


def hang(path: Path) -> None:
    time.sleep(100)


def allocate(path: Path) -> bytes:
    return bytes(8 << 30)


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGBUS)


def is_right(said: str) -> bool:
    return said == "right"
