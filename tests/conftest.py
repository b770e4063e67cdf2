"""Eight simulated devices, one process, exact float32 products."""

import logging
import socket
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_disable_most_optimizations", True)  # compile time is most of the tests


@pytest.fixture(autouse=True)
def single_device_mesh():
    """Every test runs under a mesh of one device unless it sets another."""
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        yield mesh


_COMPILATIONS = {
    name: getattr(jax.config, name)
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
}


@pytest.fixture(autouse=True)
def no_compilations_are_kept():
    """Programs that tests run in this process leave JAX's settings of compilations as they are."""
    yield
    for name, value in _COMPILATIONS.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True)
def log_level_is_kept():
    """Programs that tests run in this process leave the level of the package's log as it is."""
    log = logging.getLogger("lco_jax")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


_QUICK = ("config", "data", "metrics", "models", "nn", "objectives", "weights", "test_house.py")
"""Rooms and files whose tests take seconds; all of them together take two minutes on two cores."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of quick rooms, unless a test is slow."""
    root = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(root).parts[0]
        if room in _QUICK and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.quick)
