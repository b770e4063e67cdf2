"""Memory is used again when nobody can see it any more, and not before."""

import threading

import jax
import numpy as np

from lco_jax.runtime import buffers
from lco_jax.runtime.buffers import empty_array, reusing_memory

SHAPE = (3, 1 << 19)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_used_again():
    with reusing_memory():
        first = empty_array(SHAPE, np.uint8)
        assert first.shape == SHAPE and first.dtype == np.uint8 and first.flags.c_contiguous
        known = address(first)
        view = first.reshape(-1)[5:].view(np.uint8)
        del first
        second = empty_array(SHAPE, np.uint8)  # a view of the first is still there
        assert address(second) != known
        del view
        third = empty_array((SHAPE[1] * 3 // 4,), np.float32)  # as many bytes, nearly
        assert address(third) == known and third.dtype == np.float32


def test_outside_nothing_is_kept():
    with reusing_memory():
        kept = empty_array(SHAPE, np.uint8)
        with reusing_memory():
            del kept
        assert sum(map(len, buffers._idle.values())) == 1
        late = empty_array((8 << 20,), np.uint8)
    assert not buffers._idle
    del late
    assert not buffers._idle
    assert empty_array((2, 3), np.int32).shape == (2, 3)


def test_idle_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(buffers, "_MOST_IDLE_BYTES", 4 << 20)
    with reusing_memory():
        arrays = [empty_array(SHAPE, np.uint8) for _ in range(6)]
        arrays.clear()
        assert sum(size * len(own) for size, own in buffers._idle.items()) <= 4 << 20


def test_arrays_of_jax_keep_what_they_are_made_of():
    with reusing_memory():
        device = []
        for value in range(8):
            host = empty_array((1 << 20,), np.float32)
            host[:] = value
            device.append(jax.device_put(host, jax.devices()[0]))
        for value, array in enumerate(device):
            np.testing.assert_array_equal(array, value)


def test_threads_never_share_memory():
    wrong = []

    def work(number: int) -> None:
        for size in range(40):
            array = empty_array((1 << 18, 1 + size % 3), np.uint8)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    with reusing_memory():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
