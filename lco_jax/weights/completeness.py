"""Whether a hub folder and our parameters fit each other, tensor for tensor."""

import logging
from collections.abc import Mapping
from pathlib import Path

import jax

from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.tables import HEAD, Assignment, Table

_log = logging.getLogger(__name__)

_HEAD = HEAD.ours
"""An embedding model has none; a folder may hold it all the same."""
_MAX_LISTED = 10
"""Names per kind of an error message."""


def check_fit(
    source: SafetensorsFolder,
    table: Table,
    found: Assignment,
    shapes: Mapping[str, tuple[int, ...]],
    num_layers: int,
) -> None:
    """Raise one error that lists everything in which a folder and our tree differ."""
    unread = [
        name
        for (path, layer), name in found.names.items()
        if path not in {*shapes, _HEAD} and (layer is None or layer < num_layers)
    ]
    rowless = shapes.keys() - {row.ours for row in table.rows}
    missing, misshaped = [], []
    for path in sorted(shapes.keys() - rowless):
        row = table.row(path)
        our_shape = shapes[path][1:] if row.is_stacked else shapes[path]
        expected = row.layout.hub_shape(row.layout.sizes(our_shape))
        for key in row.keys(num_layers):
            if key not in found.names:
                missing.append(table.name(key))
                continue
            shape = source.specs[found.names[key]].shape
            if shape != expected:
                misshaped.append(f"{found.names[key]} (expected {expected}, found {shape})")
    problems = {
        "tensors that no parameter takes": found.unknown + unread,
        "missing tensors": missing,
        "tensors given twice under different names": found.doubled,
        "tensors of another shape": misshaped,
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


def log_unread(
    folder: Path, found: Assignment, shapes: Mapping[str, tuple[int, ...]], num_layers: int
) -> None:
    later = [layer for _, layer in found.names if layer is not None and layer >= num_layers]
    has_head = (_HEAD, None) in found.names and _HEAD not in shapes
    counts = {
        "of the vision and audio towers (not built yet)": len(found.towers),
        "of the talker and its vocoder": len(found.ignored),
        f"of layers from {num_layers} on": len(later),
        "of the output head": int(has_head),
    }
    for kind, count in counts.items():
        if count and jax.process_index() == 0:
            _log.info("%s: %d tensors %s are not loaded", folder, count, kind)
