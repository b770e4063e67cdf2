"""Debian packages as sources of data: downloaded, unpacked, and checked by their content."""

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

_logger = logging.getLogger(__name__)


def fetch_packages(names: Iterable[str], folder: Path) -> Path:
    """The packages unpacked together in `folder/packages`; what is there already stays. Several
    processes may ask at the same time.

    Args:
        names: as apt-get takes them, e.g. `"fonts-noto-core=20201225-*"`.

    Raises:
        FileNotFoundError: the machine has no apt-get and dpkg.
        ConnectionError: a package could not be downloaded.
    """
    names = tuple(names)
    target = folder / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "packages.lock"):
        if not target.exists():
            _fetch(names, folder / "packages.partial").rename(target)
    return target


def _fetch(names: tuple[str, ...], draft: Path) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise FileNotFoundError(
            f"apt-get and dpkg are not on this machine; unpack Debian 12's {', '.join(names)} "
            "elsewhere and give their folder (--source-dir, or --packages)"
        )
    shutil.rmtree(draft, ignore_errors=True)  # a download that was interrupted
    draft.mkdir(parents=True)
    for name in names:
        _logger.info("downloading Debian's %s", name)
        run = subprocess.run(
            ("apt-get", "download", name), cwd=draft, capture_output=True, text=True
        )
        if run.returncode:
            raise ConnectionError(
                f"apt-get could not download {name}: {run.stderr.strip()[-300:]}; run apt-get "
                "update once (Debian 12), or give a folder of unpacked packages (--source-dir, or "
                "--packages)"
            )
    for archive in sorted(draft.glob("*.deb")):
        subprocess.run(("dpkg", "-x", archive.name, "."), cwd=draft, check=True)
        archive.unlink()
    return draft


def content_digest(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 of files and of their paths within `folder`, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()
