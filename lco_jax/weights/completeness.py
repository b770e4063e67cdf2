"""Whether a hub folder and our parameters fit each other, tensor for tensor."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from lco_jax.models.config import ModelConfig
from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.tables import HEAD, TABLES, Assignment, Key, Row, Table

_log = logging.getLogger(__name__)

_HEAD = HEAD.ours
"""An embedding model has none; a folder may hold it all the same."""
_MAX_LISTED = 10
"""Names per kind of an error message."""


class Part(NamedTuple):
    """The decoder or a tower: its tensors in a folder and in our tree."""

    table: Table
    num_layers: int
    found: Assignment
    leaves: dict[str, Any]
    """By path."""
    num_mergers: int = 0
    """Of the outputs of inner layers."""

    def keys_of(self, row: Row) -> list[Key]:
        """The tensors of a row of the table, up to the number of layers or mergers."""
        return row.keys(self.num_mergers if "M" in row.stack else self.num_layers)

    @property
    def keys(self) -> set[Key]:
        """The tensors of the table, up to the numbers of layers and mergers."""
        return {key for row in self.table.rows for key in self.keys_of(row)}


def match_parts(
    source: SafetensorsFolder,
    config: ModelConfig,
    params: Mapping[str, Any],
    elsewhere: Collection[str] = (),
) -> list[Part]:
    """The parts of a model that `params` (arrays or shapes) hold, the decoder last. Parameters
    whose paths are `elsewhere` need not be among them.

    Raises:
        ValueError: unknown, missing, doubly mapped or mis-shaped tensors.
    """
    leaves = flatten_dict(params, sep="/")
    table = TABLES[config.family]
    found = table.assign(source.specs)
    parts = []
    for name in table.towers:
        tower = {path: leaves.pop(path) for path in list(leaves) if path.startswith(f"{name}/")}
        if not tower:
            continue
        tower_table = table.tower(name)
        tower_found = tower_table.assign(found.towers)
        # The tensors of other towers stay with the decoder, which comes last.
        found = replace(found, towers=tower_found.towers)
        tower_found = replace(tower_found, towers=[])
        sizes = getattr(config, name)
        num_mergers = len(sizes.deep_layers)
        part = Part(tower_table, sizes.num_layers, tower_found, tower, num_mergers)
        # Unlike a decoder, a tower is never cut to its first layers, but for those of no effect.
        beyond = tower_found.names.keys() - part.keys
        stored = part._replace(num_layers=sizes.num_stored_layers).keys
        tower_found.unused.extend(tower_found.names.pop(key) for key in sorted(beyond & stored))
        beyond -= stored
        tower_found.unknown.extend(tower_found.names[key] for key in sorted(beyond))
        parts.append(part)
    if leaves or not parts:
        parts.append(Part(table, config.text.num_layers, found, leaves))
    for part in parts:
        _check_fit(source, part, elsewhere)
    return parts


def _check_fit(source: SafetensorsFolder, part: Part, elsewhere: Collection[str]) -> None:
    """Raise one error that lists everything in which a folder and our tree differ."""
    table, found, leaves = part.table, part.found, part.leaves
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    held, fitting = {*shapes, *elsewhere, _HEAD}, part.keys
    unread = [name for key, name in found.names.items() if key[0] not in held and key in fitting]
    rowless = shapes.keys() - {row.ours for row in table.rows}
    missing, misshaped, integer = [], [], []
    for path in sorted(shapes.keys() - rowless):
        row = table.row(path)
        our_shape = shapes[path][len(row.stack) :]
        expected = row.layout.hub_shape(row.layout.sizes(our_shape))
        for key in part.keys_of(row):
            if key not in found.names:
                missing.append(table.name(key))
                continue
            name = found.names[key]
            spec = source.specs[name]
            if spec.shape != expected:
                misshaped.append(
                    f"{name} (expected {expected}, found {spec.shape} in {source.file(name).name})"
                )
            if not jnp.issubdtype(spec.dtype, jnp.floating):
                integer.append(f"{name} ({spec.dtype})")
    problems = {
        "tensors that no parameter takes": found.unknown + unread,
        "missing tensors": missing,
        "tensors given twice under different names": found.doubled,
        "tensors of another shape": misshaped,
        "tensors of integers, as quantised models have them": integer,
        "parameters without a row in the weight table": sorted(rowless),
    }
    lines = [
        f"  {len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}"
        + (", …" if len(names) > _MAX_LISTED else "")
        for kind, names in problems.items()
        if names
    ]
    if lines:
        raise ValueError(
            "\n".join([f"{source.folder} does not fit a {table.family} model:", *lines])
        )


def log_unread(folder: Path, part: Part) -> None:
    """Tell which tensors of a folder stay unread although they fit."""
    found = part.found
    later = found.names.keys() - part.keys
    has_head = (_HEAD, None) in found.names and _HEAD not in part.leaves
    counts = {
        "of the vision and audio towers (not asked for)": len(found.towers),
        "of the talker and its vocoder": len(found.ignored),
        "that no feature depends on": len(found.unused),
        f"of layers from {part.num_layers} on": len(later),
        "of the output head": int(has_head),
    }
    for kind, count in counts.items():
        if count and jax.process_index() == 0:
            _log.info("%s: %d tensors %s are not loaded", folder, count, kind)
