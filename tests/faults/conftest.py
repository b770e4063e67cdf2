"""What several tests of faults share."""

import pytest

from lco_jax.runtime import lease as leases
from lco_jax.runtime import locks


@pytest.fixture
def quick(monkeypatch):
    """Leases of a second."""
    monkeypatch.setattr(leases, "PATIENCE_S", 1.0)
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(leases, "SETTLE_S", 0.0)
    monkeypatch.setattr(locks, "_LOOK_S", 0.05)
