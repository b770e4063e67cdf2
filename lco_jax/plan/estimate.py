"""A step's roofline without compiling it: what the compiled plans of the recipes have in common.

It ranks settings; the compiler has the last word.
"""

from dataclasses import dataclass

from lco_jax.config import TrainConfig
from lco_jax.data.pack.batch import Shape
from lco_jax.models.config import ModelConfig
from lco_jax.objectives.traits import traits_of
from lco_jax.plan.topologies import Topology
from lco_jax.plan.useful_work import matrix_weights

_PASSES = {"none": 4.2, "dots": 4.2, "full": 5.6}
"""FLOPs a token in units of N, factors included: forward, gradient of the activations, and with
full recomputation the forward pass again but for each block's last product."""
_TRAFFIC = {"none": 42.0, "dots": 42.0, "full": 58.0}
"""Bytes that a layer moves for each token and each dimension of the model's width."""
_TOWER_TRAFFIC = 40.0
"""The same for a patch and a layer of the vision tower, forward alone."""
_LAYERS_AT_WORK = 3
"""Whose inner values, and their gradients, are there at a time."""
_BYTES = 2
"""Of a weight or an activation in bfloat16."""
_SUM_BYTES = {"float32": 4, "bfloat16": 2}
"""Of a number that is added up over the tensor axis."""


@dataclass(frozen=True)
class Estimate:
    """Seconds on each resource of a chip, all at their peak."""

    compute_s: float
    hbm_s: float
    ici_s: float
    num_bytes: float
    """Of a chip's memory."""

    @property
    def step_s(self) -> float:
        """If everything overlaps perfectly."""
        return max(self.compute_s, self.hbm_s, self.ici_s)


def estimate(
    config: TrainConfig, topology: Topology, model: ModelConfig, shape: Shape, state_bytes: float
) -> Estimate:
    """Of a step whose batches have a shape, on the mesh of the config, where all chips together
    would hold `state_bytes` if each value existed once.
    """
    memory, chip, text = config.memory, topology.chip, model.text
    _, fsdp, tensor = config.mesh.resolve(len(topology.devices))
    chunks, layers = memory.encode_chunks, text.num_layers
    # Of an encode chunk only the pooled states are kept: its forward pass runs again.
    again = chunks > 1 and not traits_of(config.objective).has_targets
    slots = chunks * shape.rows * shape.row_tokens
    patches = chunks * shape.media.patch_rows * shape.media.frame_row
    weights = matrix_weights(text)

    # Attention of the decoder is left out: its cost grows with the rows, but stays a few percent.
    flops = (_PASSES[memory.remat] + 2 * again) * weights * slots / tensor
    passes = 2 + (memory.remat == "full") + again
    moved = chunks * passes * _BYTES * weights / tensor
    per_token = _TRAFFIC[memory.remat] * (1 + again / 2)
    moved += per_token * slots * layers * (text.hidden_size + text.intermediate_size / tensor) / 2
    # Both halves of a layer end in a sum over the tensor axis, forward and backward.
    sums = (4 + (memory.remat == "full") + 2 * again) * layers * slots * text.hidden_size
    if model.vision is not None:
        vision = model.vision
        flops += 2.0 * vision.matrix_weights * patches / tensor
        seen = len(vision.full_layers) * shape.media.frame_row
        flops += 4.0 * vision.hidden_size * seen * patches / tensor
        moved += _TOWER_TRAFFIC * patches * vision.num_layers * vision.hidden_size
        sums += 2 * vision.num_layers * patches * vision.hidden_size
    sent = 2 * (tensor - 1) / tensor * _SUM_BYTES[config.mesh.tensor_sums] * sums
    # Weights that are spread over `fsdp` are gathered for each pass.
    sent += chunks * passes * _BYTES * weights / tensor * (fsdp - 1) / fsdp
    kept = _kept_bytes(model, memory.remat, shape.rows * shape.row_tokens, tensor)
    layer = _kept_bytes(model, "none", shape.rows * shape.row_tokens, tensor) / layers
    return Estimate(
        num_bytes=state_bytes / (tensor * fsdp) + kept + _LAYERS_AT_WORK * layer,
        compute_s=flops / chip.bf16_flops,
        hbm_s=moved / chip.hbm_bytes_per_s,
        ici_s=sent / chip.ici_bytes_per_s,
    )


def _kept_bytes(model: ModelConfig, remat: str, slots: int, tensor: int) -> float:
    """What all layers of the decoder keep of an encode chunk for its backward pass."""
    size = model.text.sizes
    width = size["D"]
    if remat != "full":
        inner = (2 * size["N"] + 2 * size["K"]) * size["H"] + 2 * size["F"]
        if remat == "none":
            inner += 2 * size["F"] + size["N"] * size["H"]
            width *= 4
        width = 2 * width + inner / tensor
    return _BYTES * slots * size["L"] * width
