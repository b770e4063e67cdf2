"""Checksums of the values of a checkpoint, which do not depend on how they are cut over devices."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from lco_jax.runtime.mesh import compile_for_mesh, mesh_platform

_GOLDEN = 0x9E3779B9
_MIX = (0x85EBCA6B, 0xC2B2AE35)
"""Constants of the finaliser of MurmurHash3, a bijection of 32 bits."""


class DamagedError(ValueError):
    """What was read is not what was saved."""


def checksums_of(tree: Any) -> dict[str, str]:
    """Of every array its dtype and a checksum of 32 bits, by its path.

    A change of one element always changes the sum, and one of many does unless they cancel out (1
    in 2^32). It is computed where the arrays lie: all processes that hold them call it together.
    """
    leaves = [(_name(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
    # One program: several at a time, each with sums over devices, may wait for each other on CPUs.
    sums = jax.device_get(_compiled(mesh_platform())([x for _, x in leaves]))
    return {
        name: f"{x.dtype} {int(value):08x}" for (name, x), value in zip(leaves, sums, strict=True)
    }


def check_values(tree: Any, expected: Mapping[str, str]) -> None:
    """Check that the arrays of a tree are those of which the checksums were made.

    Raises:
        DamagedError: names those that are not.
    """
    found = checksums_of(tree)
    wrong = [name for name, value in found.items() if expected.get(name) != value]
    if wrong:
        shown = ", ".join(
            f"{name}: {found[name]} instead of {expected.get(name, 'nothing')}"
            for name in wrong[:2]
        )
        raise DamagedError(
            f"the checksums of {len(wrong)} of {len(found)} arrays differ from those that were "
            f"saved ({shown})"
        )


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


@functools.cache
def _compiled(platform: str) -> Callable[[list[Array]], list[UInt32[Array, ""]]]:
    return compile_for_mesh(_checksums)


def _checksums(arrays: list[Array]) -> list[UInt32[Array, ""]]:
    return [_checksum(x) for x in arrays]


def _checksum(x: Array) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    sharding = jax.typeof(x).sharding
    place = jnp.uint32(0)
    for axis, length in enumerate(x.shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis, out_sharding=sharding)
        place = place * jnp.uint32(length % 2**32) + index
    mixed = bits ^ (place * jnp.uint32(_GOLDEN))
    for factor, shift in zip(_MIX, (16, 13), strict=True):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
