"""Compiled programs that the next start reads from a folder, without tracing them again."""

import contextlib
import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from lco_jax.runtime.code_digest import code_digest

log = logging.getLogger(__name__)

_FOLDER = "lco_jax_programs"
"""In the folder of JAX's own compilation cache, which keeps what XLA makes of a traced program."""
_UNUSED_DAYS = 60
_CHECKSUM_BYTES = 32
_WITHOUT_EFFECT = ("jax_compilation_cache_dir",)


class KeptPrograms:
    """A jitted function with one array as result, whose programs are kept between starts.

    They are where `jax_compilation_cache_dir` says; without such a folder, and among several
    processes, this is the jitted function.

    Args:
        jitted: what `jax.jit` returns; all arguments are trees of arrays.
        describe: says all that the function computes with besides its arguments and the code of
            the package, the same in every process.
    """

    def __init__(self, jitted: Callable[..., jax.Array], describe: Callable[[], str]):
        self._jitted = jitted
        self._describe = functools.cache(describe)
        self._programs: dict[Any, jax.stages.Compiled] = {}

    def __call__(self, *arguments: Any) -> jax.Array:
        folder = jax.config.jax_compilation_cache_dir
        if folder is None or jax.process_count() > 1:
            return self._jitted(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        shapes = (tree, *((jax.typeof(leaf), _placement(leaf)) for leaf in leaves))
        if (program := self._programs.get(shapes)) is None:
            program = self._open(epath.Path(folder) / _FOLDER, arguments, shapes)
            self._programs[shapes] = program
        return program(*arguments)

    @property
    def num_programs(self) -> int:
        """Shapes of arguments that were met."""
        return len(self._programs) + self._jitted._cache_size()

    def _open(self, folder: epath.Path, arguments: tuple, shapes: tuple) -> jax.stages.Compiled:
        """The program that the folder has for such arguments; if none, it is compiled and kept."""
        devices = jax.sharding.get_mesh().devices.flatten().tolist()
        file = folder / _digest(code_digest(), self._describe(), _settings(devices), shapes)
        tree = jax.tree.structure((arguments, {}))
        try:
            program = serialize_executable.deserialize_and_load(
                _checked(file.read_bytes()),
                tree,
                jax.tree.structure(0),
                execution_devices=devices,
            )
        except FileNotFoundError:
            pass
        except Exception as error:  # ours, or of pickle and XLA about a file of another kind
            log.warning("%s: compiled again, since it cannot be read: %s", file, error)
        else:
            with contextlib.suppress(OSError):
                os.utime(file)  # in use
            return program
        with _compiled_anew(devices[0].platform):
            program = self._jitted.lower(*arguments).compile()
        try:
            serialized, _, _ = serialize_executable.serialize(program)
            _write(file, _checksum(serialized) + serialized)
        except Exception as error:  # of a full disk, or a program that this backend cannot keep
            log.info("%s: not kept: %s", file, error)
        return program


@contextlib.contextmanager
def _compiled_anew(platform: str) -> Iterator[None]:
    """Leave JAX's own cache alone on CPUs, where a program that was read from it cannot be written
    to a file once more: some of its functions would be missing.
    """
    before = jax.config.jax_enable_compilation_cache
    if platform != "cpu" or not before:
        yield
        return
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # whether it is used is decided once
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _placement(leaf: Any) -> tuple:
    return getattr(leaf, "sharding", None), getattr(leaf, "committed", None)


def _settings(devices: list[jax.Device]) -> tuple:
    """What a compiler makes of a program depends on besides the program."""
    client = devices[0].client
    options = {
        name: value for name, value in jax.config.values.items() if name not in _WITHOUT_EFFECT
    }
    return (
        client.platform,
        client.platform_version,
        [(device.id, device.device_kind) for device in devices],
        _cpu_features(),
        sorted(options.items()),
        [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    )


@functools.cache
def _cpu_features() -> str:
    """What this machine's processors can do: a home folder may be that of several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()


def _checked(content: bytes) -> bytes:
    """What stands behind the checksum: machine code, of which no bit may be another."""
    content = memoryview(content)
    checksum, rest = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
    if checksum != _checksum(rest):
        raise ValueError("its checksum is another")
    return bytes(rest)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=20).hexdigest()


def _write(file: epath.Path, content: bytes) -> None:
    """Put a file into its folder as a whole, and take out those that nobody has read for long."""
    file.parent.mkdir(parents=True, exist_ok=True)
    parted = file.parent / f"{file.name}.{os.getpid()}.tmp"
    parted.write_bytes(content)
    parted.replace(file)
    oldest = time.time() - _UNUSED_DAYS * 86_400
    for other in file.parent.iterdir():
        if other.stat().mtime < oldest:
            other.unlink(missing_ok=True)
