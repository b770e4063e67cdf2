"""The representax program that embeds images for `benchmarks.images`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float
from representax.core import Route, encode
from representax.integrations.huggingface import load_hf_config, load_safetensor_subset
from representax.models.qwen2_vl.checkpoint import Qwen2VLCheckpointAdapter, qwen2_vl_weight_names
from representax.models.qwen2_vl.config import Qwen2VLConfig
from representax.models.qwen2_vl.model import Qwen2VLBatch, Qwen2VLEncoder
from representax.models.qwen2_vl.processing import batch_from_processor_output

from benchmarks.image_prompts import ImagePrompts
from benchmarks.peer_library import static_size
from benchmarks.report import Work, jax_product


class ImageEmbedding:
    """Left-padded batches, sorted by size, in static shapes."""

    def __init__(self, folder: Path, dtype: str):
        self._dtype = dtype
        # The checkpoint names no token for padding, and its vocabulary is shorter than the default.
        config = Qwen2VLConfig.from_hf_config({**load_hf_config(folder), "pad_token_id": 0})
        weights = load_safetensor_subset(folder, qwen2_vl_weight_names(config), dtype=dtype)
        adapter = Qwen2VLCheckpointAdapter(rematerialization="none")
        self._model = adapter.from_state_dict(
            config, weights, parameter_dtype=dtype, compute_dtype=dtype
        )
        self._prompts = ImagePrompts(folder)

    def run(self, task: tuple[Sequence[bytes], int]) -> Work:
        """Embed encoded images in batches of the given size."""
        files, batch_size = task
        vectors = np.zeros((len(files), self._model.config.text.hidden_size), np.float32)
        for chosen, features in self._prompts.batches(files, batch_size):
            batch = batch_from_processor_output(
                features,
                self._model.config,
                sequence_length_buckets=(static_size(features["input_ids"].shape[1]),),
                patch_count_buckets=(static_size(len(features["pixel_values"])),),
                padding_side="left",
            )
            vectors[chosen] = _embed(self._model, batch)
        return Work(1, 1, vectors=vectors)

    def multiply(self, shape: tuple[int, int, int]) -> Callable[[], None]:
        """A matrix product in the dtype of the model, summed in float32."""
        return jax_product(shape, self._dtype)


@eqx.filter_jit
def _embed(model: Qwen2VLEncoder, batch: Qwen2VLBatch) -> Float[Array, "B D"]:
    return encode(model, batch, route=Route.DOCUMENT)
