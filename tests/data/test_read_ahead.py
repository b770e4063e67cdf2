"""Steps are read ahead as far as memory allows, in any order, and none is waited for in vain."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lco_jax.data import loader as loaders
from lco_jax.data.read_ahead import ReadAhead, num_bytes
from tests.data.test_loader import folder as folder
from tests.data.test_loader import make_loader
from tests.data.test_loader import prompter as prompter


@pytest.mark.parametrize(("max_bytes", "most"), [(0, 1), (250, 3), (10_000, 20)])
def test_what_waits_is_bounded(max_bytes, most):
    """Eight threads, steps of 100 bytes: as many wait as have room, and the one that is wanted."""
    ahead, waiting, seen = ReadAhead(max_bytes, 0), set(), []
    lock, done = threading.Lock(), [threading.Event() for _ in range(20)]

    def read(step):
        with lock:
            waiting.add(step)
            seen.append(len(waiting))
        return step

    with ThreadPoolExecutor(8) as pool:
        for step in range(20):
            future = pool.submit(ahead.read, step, read, lambda _: 100)
            future.add_done_callback(lambda _, step=step: done[step].set())
        for step in range(20):
            assert done[step].wait(30)
            with lock:
                waiting.discard(step)
            ahead.take(step)
    assert max(seen) <= most


def test_who_leaves_waits_for_nothing():
    ahead = ReadAhead(0, 0)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ahead.read, 5, lambda step: step, lambda _: 1)
        assert not late.done()
        ahead.close()
        assert late.result(30) == 5


def test_a_loader_reads_the_same_however_far(folder, prompter, monkeypatch):
    expected = [batch for _, batch, _ in make_loader(folder, prompter)]
    monkeypatch.setattr(loaders, "_READ_AHEAD_BYTES", 1)
    loader, counts = make_loader(folder, prompter), []
    encode = type(loader)._encode
    started, taken = [], []

    def counted(self, step):
        started.append(step)
        counts.append(len(started) - len(taken))
        return encode(self, step)

    monkeypatch.setattr(type(loader), "_encode", counted)
    for step, batch, _ in loader:
        taken.append(step)
        assert (batch.tokens == expected[step].tokens).all()
    assert taken == list(range(10))
    # Beside the one that is read, those that are packed, and one in the hands of the caller.
    assert max(counts) <= 2 + loaders._PACKED_AHEAD_STEPS
    for _, _, _ in loader:  # one that is left early ends, too
        break


def test_bytes_of_items(folder, prompter):
    loader = make_loader(folder, prompter)
    _, items, _ = loader._encode(0)
    tokens = sum(item.tokens.nbytes for item in items if item is not None)
    assert num_bytes([None, *items]) >= tokens > 0
