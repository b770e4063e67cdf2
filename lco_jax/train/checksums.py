"""Checksums of the values of a checkpoint, which do not depend on how they are cut over devices."""

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from lco_jax.runtime import processes
from lco_jax.runtime.pieces import Found, look

_GOLDEN = 0x9E3779B9
_MIX = (0x85EBCA6B, 0xC2B2AE35)
"""Constants of the finaliser of MurmurHash3, a bijection of 32 bits."""


class DamagedError(ValueError):
    """What was read is not what was saved."""


@dataclass(frozen=True)
class Checksums:
    """Of every array of a tree its dtype and a checksum of 32 bits, by its path."""

    by_path: dict[str, str]
    one_copy: bool
    """Whether what lies on several devices is the same on all; else they are of the first."""


def checksums_of(tree: Any) -> Checksums:
    """The checksums of the arrays of a tree; all processes that hold them call it together.

    A change of one element always changes the sum, and one of many does unless they cancel out (1
    in 2^32).
    """
    found = _sums(tree)
    by_path = {name: f"{dtype} {sums[0]:08x}" for name, dtype, sums in found}
    return Checksums(by_path, all(len(set(sums.values())) == 1 for _, _, sums in found))


def check_values(tree: Any, expected: Mapping[str, str]) -> None:
    """Check that the arrays of a tree are, on every device, those of which the checksums were made.
    All processes that hold them call it together.

    Raises:
        DamagedError: names those that are not.
    """
    found = [
        (name, {f"{dtype} {value:08x}" for value in sums.values()})
        for name, dtype, sums in _sums(tree)
    ]
    wrong = [(name, said) for name, said in found if said != {expected.get(name)}]
    if wrong:
        shown = ", ".join(
            f"{name}: {' and '.join(sorted(said))} instead of {expected.get(name, 'nothing')}"
            for name, said in wrong[:2]
        )
        raise DamagedError(
            f"the checksums of {len(wrong)} of {len(found)} arrays differ from those that were "
            f"saved ({shown})"
        )


def _sums(tree: Any) -> list[tuple[str, str, dict[int, int]]]:
    """Path, dtype, and of each copy the checksum, of every array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    own = [_by_copy(found) for found in look(_checksum, [x for _, x in leaves])]
    said = processes.gather("checksums", json.dumps([list(sums.items()) for sums in own]))
    parts = zip(*map(json.loads, said), strict=True)
    return [
        (_name(path), str(x.dtype), _by_copy(Found(*one) for part in parts_of for one in part))
        for (path, x), parts_of in zip(leaves, parts, strict=True)
    ]


def _by_copy(found: Iterable[Found]) -> dict[int, int]:
    sums: dict[int, int] = collections.defaultdict(int)
    for one in found:
        sums[one.copy] = (sums[one.copy] + one.value) % 2**32
    return dict(sums)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum of their own."""
    return content | {"seal": _digest(content)}


def unsealed(content: Any, older: frozenset[str]) -> dict[str, Any]:
    """What was sealed.

    Args:
        older: the names that earlier revisions wrote, without a seal.

    Raises:
        DamagedError: it is something else.
    """
    if not isinstance(content, dict):
        raise DamagedError("its metadata cannot be read")
    if content.keys() == older:
        return content
    inner = {name: value for name, value in content.items() if name != "seal"}
    if content.get("seal") != _digest(inner):
        raise DamagedError("the checksum of its metadata differs from the one that was saved")
    return inner


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _checksum(x: Array, places: UInt32[Array, "..."]) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    mixed = bits ^ (places * jnp.uint32(_GOLDEN))
    for factor, shift in zip(_MIX, (16, 13), strict=True):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
