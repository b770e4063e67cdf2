"""Whether an item fits into a batch at all."""

from collections.abc import Sequence

from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.errors import RecordError
from lco_jax.data.pack.patch_layout import choose_frame_row
from lco_jax.models.config import ModelConfig


def fitting(
    encoded: Encoded, row_tokens: Sequence[int], frame_rows: Sequence[int], config: ModelConfig
) -> Encoded | RecordError:
    """The item, or why it fits into no batch.

    Args:
        row_tokens: allowed lengths of a row of tokens, ascending.
        frame_rows: allowed lengths of a row of patches, ascending.
    """
    longest = row_tokens[-1]
    if len(encoded.tokens) > longest:
        media = "fewer or smaller media, " if encoded.media else ""
        return RecordError(
            f"an item of {len(encoded.tokens)} tokens does not fit into rows of {longest}; use "
            f"{media}a lower max_text_tokens, or in training a longer row (memory.row_tokens)"
        )
    grids = [medium.content.grid for medium in encoded.visuals]
    try:
        if grids:
            choose_frame_row(grids, frame_rows, config.vision)
    except ValueError as error:
        return RecordError(str(error))
    return encoded
