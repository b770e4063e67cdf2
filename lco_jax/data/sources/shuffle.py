"""Random access to shuffled numbers: a permutation of any size, without ever writing it down.

It is that of `grain.MapDataset.shuffle`, for many indices at once; the order of the data of every
run depends on it.
"""

import functools

import numpy as np
from jaxtyping import Int64

_ROUNDS = 4
_LEAST_BITS = 16
"""Of the numbers that the cipher permutes: it is worse with fewer."""
_WORD = 0xFFFFFFFF
_FILL = 0x8B8B8B8B


def shuffle(indices: Int64[np.ndarray, "N"], size: int, seed: int) -> Int64[np.ndarray, "N"]:
    """Where the permutation of the numbers below `size` that belongs to a seed takes some of them.

    Numbers are encrypted by a block cipher, again and again until they are below `size`.

    Args:
        seed: of 32 bits.

    Source: Grain's index_shuffle: Simon (eprint.iacr.org/2013/404) with four rounds, whose keys are
    those of `std::seed_seq` in C++.
    """
    if size == 1:
        return np.zeros_like(indices)
    # As Grain counts, 2**16 + 1 numbers have 16 bits, and the last is taken for the first.
    bits = int(np.ceil(np.log2(size - 1)))
    bits = max(bits + bits % 2, _LEAST_BITS)
    if bits == _LEAST_BITS:
        return _small_permutation(size, seed)[indices]
    keys = _keys(seed)
    found = _encrypt(indices.astype(np.uint64), keys, bits)
    while True:
        beyond = np.flatnonzero(found >= np.uint64(size))
        if not len(beyond):
            return found.astype(np.int64)
        found[beyond] = _encrypt(found[beyond], keys, bits)


@functools.lru_cache(maxsize=32)  # a pass or two of each source
def _small_permutation(size: int, seed: int) -> Int64[np.ndarray, "N"]:
    """All of it: what takes one number into place may pass by thousands of others."""
    after = _encrypt(np.arange(1 << _LEAST_BITS, dtype=np.uint64), _keys(seed), _LEAST_BITS)
    after = after.astype(np.int64)
    starts = np.arange(size) & ((1 << _LEAST_BITS) - 1)
    while (after[starts] >= size).any():  # twice as many steps each time
        after = np.where(after >= size, after[after], after)
    return after[starts]


def _encrypt(values: np.ndarray, keys: tuple[int, ...], bits: int) -> np.ndarray:
    """Unsigned numbers of so many bits, permuted."""
    half, mask = np.uint64(bits // 2), np.uint64((1 << bits // 2) - 1)

    def turn(x: np.ndarray, by: int) -> np.ndarray:
        return ((x << np.uint64(by)) | (x >> (half - np.uint64(by)))) & mask

    def mix(x: np.ndarray) -> np.ndarray:
        return (turn(x, 1) & turn(x, 8)) ^ turn(x, 2)

    left, right = (values >> half) & mask, values & mask
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = left ^ mix(right) ^ (np.uint64(first) & mask)
        right = right ^ mix(left) ^ (np.uint64(second) & mask)
    return (left << half) | right


@functools.lru_cache(maxsize=1024)
def _keys(seed: int) -> tuple[int, ...]:
    """One of 32 bits for each of the four rounds.

    Source: std::seed_seq::generate of the C++ standard ([rand.util.seedseq]), of one seed.
    """
    keys = [_FILL] * _ROUNDS
    for step in range(2 * _ROUNDS):
        here, near, far, last = (place % _ROUNDS for place in (step, step + 1, step + 2, step - 1))
        if step < _ROUNDS:
            drawn = 1664525 * _fold(keys[here] ^ keys[near] ^ keys[last]) & _WORD
            more = drawn + (1, 1 + seed, 2, 3)[step]
            keys[near], keys[far] = keys[near] + drawn & _WORD, keys[far] + more & _WORD
            keys[here] = more & _WORD
        else:
            drawn = 1566083941 * _fold(keys[here] + keys[near] + keys[last] & _WORD) & _WORD
            less = drawn - here & _WORD
            keys[near], keys[far], keys[here] = keys[near] ^ drawn, keys[far] ^ less, less
    return tuple(keys)


def _fold(value: int) -> int:
    return value ^ (value >> 27)
