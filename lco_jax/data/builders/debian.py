"""Debian packages as sources of data: downloaded, unpacked, and checked by their content."""

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_logger = logging.getLogger(__name__)


def fetch_packages(names: Iterable[str], folder: Path) -> Path:
    """The packages unpacked together under `folder`; what is there already stays.

    Args:
        names: as apt-get takes them, e.g. `"fonts-noto-core=20201225-*"`.

    Raises:
        FileNotFoundError: the machine has no apt-get and dpkg.
        ConnectionError: a package could not be downloaded.
    """
    names = tuple(names)
    target = folder / "packages"
    if target.exists():
        return target
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise FileNotFoundError(
            f"apt-get and dpkg are not on this machine; unpack Debian 12's {', '.join(names)} "
            "elsewhere and give the folder with --source-dir"
        )
    draft = folder / "packages.partial"
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
                "update once (Debian 12), or give a folder of unpacked packages with --source-dir"
            )
    for archive in sorted(draft.glob("*.deb")):
        subprocess.run(("dpkg", "-x", archive.name, "."), cwd=draft, check=True)
        archive.unlink()
    draft.rename(target)
    return target


def content_digest(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 of files and of their paths within `folder`, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()
