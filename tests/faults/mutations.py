"""Damaged bytes and odd JSON, the same for the same seed."""

import copy
import json
import random
from typing import Any

ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 10**9, 2**63, 10**40, -(2**62)),
    *(0.0, -0.5, 1.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf")),
    *("", "x", "../x", "/etc/passwd", "\0", "a" * 5000, "\ud800", "NaN"),
    *([], {}, [None], [[]], {"a": 1}, [0] * 1000, {"": {"": {}}}),
)
_EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def damaged_bytes(content: bytes, seed: int, *, dense: int | None = None) -> bytes:
    """The bytes with one fault: a flipped bit, another number, a cut, a hole, a piece twice.

    Args:
        dense: half of the faults are in so many bytes of the beginning (None: nothing special).
    """
    rng = random.Random(seed)
    size = dense if dense and rng.random() < 0.5 else len(content)
    at = rng.randrange(size)
    kind = rng.randrange(9)
    changed = bytearray(content)
    if kind <= 2:
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 3:
        changed[at] = rng.choice((0, 1, 32, 34, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 4:
        width = rng.choice((2, 4, 8))
        number = rng.choice(_EXTREMES) % (1 << 8 * width)
        changed[at : at + width] = number.to_bytes(width, "little")
    elif kind == 5:
        del changed[at:]
    elif kind == 6:
        del changed[at : at + rng.randrange(1, 64)]
    elif kind == 7:
        changed[at:at] = changed[at : at + rng.randrange(1, 64)]
    else:
        first = rng.randrange(len(content))
        changed[at : at + 16] = content[first : first + 16]
    return bytes(changed)


def damaged_json(text: str, seed: int) -> bytes:
    """Half of them as bytes; of the others one field is gone, odd, twice or called otherwise; or
    the text begins with a byte-order mark, is in another encoding or is nested without end."""
    rng = random.Random(seed)
    if rng.random() < 0.4:
        return damaged_bytes(text.encode(), rng.randrange(2**31))
    if rng.random() < 0.1:
        return rng.choice(
            (
                b"\xef\xbb\xbf" + text.encode(),
                text.encode("utf-16"),
                b"[" + text.encode() + b"]",
                b"[" * 100_000,
                b'{"a":' * 100_000,
                text.encode() * 2,
                b"",
                b"null",
                b'"' + b"9" * 10_000 + b'"',
                b"9" * 10_000,
            )
        )
    value = copy.deepcopy(json.loads(text))
    holders = [*_holders(value)] or [value]
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return json.dumps([value]).encode()
    key = rng.choice(keys)
    kind = rng.randrange(6)
    if kind <= 3:
        holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    elif kind == 4:
        del holder[key]
    elif isinstance(holder, dict):
        name = list(key) or ["x"]
        name[rng.randrange(len(name))] = rng.choice("aeiouxyz_0")
        holder["".join(name)] = holder.pop(key)
    else:
        holder.append(holder[key])
    return json.dumps(value).encode()


def _holders(value: Any):
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """All values in JSON that hold no others, by path."""
    if isinstance(value, dict) and value:
        pairs = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {path: value}
    found = {}
    for key, inner in pairs:
        found |= leaves(inner, f"{path}/{key}")
    return found
