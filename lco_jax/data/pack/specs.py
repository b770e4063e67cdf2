"""Where the arrays of a batch live on the mesh."""

from typing import TypeVar

from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.media_batch import AudioBatch, MediaBatch, VisionBatch
from lco_jax.runtime.axes import act_spec

_T = TypeVar("_T", MediaBatch, VisionBatch)

BATCH_SPECS = Batch(
    tokens=act_spec("C B S"),
    segments=act_spec("C B S"),
    positions=act_spec("C B S X"),
    pool=act_spec("C J I"),
    valid=act_spec("C J I"),
    content=act_spec("C J I X"),
)
"""Where the arrays of a batch of texts live on the mesh."""
MEDIA_SPECS = MediaBatch(
    vision=VisionBatch(*(act_spec(f"C G {rest}") for rest in ("P X", "X X", "X X", "X X", "P X"))),
    audio=AudioBatch(act_spec("C G X X X"), act_spec("C G X")),
    slots=act_spec("C B S"),
    known=act_spec("C G X X"),
)


def batch_specs(batch: Batch) -> Batch:
    """Where the arrays of a batch live on the mesh."""
    specs = BATCH_SPECS
    if batch.targets is not None:
        specs = specs._replace(targets=act_spec("C B S"))
    if batch.vocabulary is not None:
        specs = specs._replace(vocabulary=act_spec("C X"))
    if batch.media is None:
        return specs
    media = _where_given(MEDIA_SPECS, batch.media)
    if batch.media.vision is not None:
        media = media._replace(vision=_where_given(MEDIA_SPECS.vision, batch.media.vision))
    return specs._replace(media=media)


def _where_given(specs: _T, parts: _T) -> _T:
    """The specs of the parts that are not None."""
    pairs = zip(specs, parts, strict=True)
    return type(specs)(*(None if part is None else spec for spec, part in pairs))
