"""What of a `config.json` is read, and which values of what is not read are allowed.

Source: the configuration classes of transformers; its attention masks, which read `is_causal` and
`attention_chunk_size` of every model.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lco_jax.models.field_types import (
    Layers,
    One,
    Pixels,
    Positions,
    Positive,
    Rate,
    Size,
    TokenId,
    Zero,
)
from lco_jax.models.json_files import Schema
from lco_jax.models.rope_schema import Rope

_DROPOUT = "it counts in training alone: set it to 0 to use the model without"
_WINDOWS = (
    "sliding windows are not supported; if no text is longer than sliding_window, vectors are the "
    "same without: set sliding_window to null, and layer_types to full_attention"
)
_EXPERTS = "mixtures of experts are not supported, use a dense model"


class Level(Schema):
    """An object in a `config.json`, with what would change the results of any model and is not
    supported."""

    quantization_config: None = Field(
        None,
        description="quantised weights (AWQ, GPTQ, bitsandbytes, FP8) are not read: use the "
        "checkpoint in bfloat16 that they were made of",
    )
    num_experts: Zero | None = Field(None, description=_EXPERTS)
    num_local_experts: Zero | None = Field(None, description=_EXPERTS)
    n_routed_experts: Zero | None = Field(None, description=_EXPERTS)
    is_causal: Literal[True] | None = Field(
        None, description="models in which tokens attend to later ones are not supported"
    )
    use_bidirectional_attention: Literal[False] | None = None
    add_cross_attention: Literal[False] | None = None
    is_encoder_decoder: Literal[False] | None = None
    attention_chunk_size: None = None
    attn_logit_softcapping: None = None
    final_logit_softcapping: None = None
    attention_multiplier: None = None
    query_pre_attn_scalar: None = None
    embedding_multiplier: One | None = None
    residual_multiplier: One | None = None
    logits_scaling: One | None = None
    logit_scale: One | None = None
    partial_rotary_factor: One | None = None
    use_qk_norm: Literal[False] | None = None
    qk_layernorm: Literal[False] | None = None
    per_layer_config: None = None
    transformers_weights: None = None
    fusion_config: None = None


class Text(Level):
    """The decoder."""

    vocab_size: TokenId
    num_hidden_layers: Layers
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Positions | None = None
    original_max_position_embeddings: Positions | None = None
    rope_theta: Positive | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    """As older files call it."""
    rms_norm_eps: Annotated[float, Field(gt=0, le=0.1)]
    hidden_act: Literal["silu"] = "silu"
    layer_types: list[Literal["full_attention"]] | None = Field(None, description=_WINDOWS)
    use_sliding_window: bool | None = None
    sliding_window: int | None = None
    max_window_layers: int | None = None
    attention_bias: bool | None = None
    mlp_bias: Literal[False] | None = None
    attention_dropout: Zero | None = Field(None, description=_DROPOUT)
    tie_word_embeddings: bool | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Text":
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a multiple of "
                f"num_attention_heads={self.num_attention_heads} where there is no head_dim"
            )
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types has {len(self.layer_types)} entries for "
                f"num_hidden_layers={self.num_hidden_layers}"
            )
        if self.rope_parameters and self.rope_scaling not in (None, self.rope_parameters):
            raise ValueError(
                f"rope_parameters={self.rope_parameters!r} and rope_scaling={self.rope_scaling!r} "
                "must not differ"
            )
        if (self.head_dim or self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                "heads must have an even width, that of head_dim or hidden_size / "
                f"num_attention_heads: head_dim={self.head_dim}, hidden_size={self.hidden_size}, "
                f"num_attention_heads={self.num_attention_heads}"
            )
        own, theta = self.rope.rope_theta, self.rope_theta
        if own and theta not in (None, own):
            raise ValueError(
                f"rope_theta={theta} and that of the rope parameters, {own}, must not differ"
            )
        if not (own or theta):
            raise ValueError("lacks 'rope_theta'")
        trained = self.original_max_position_embeddings
        inner = self.rope.original_max_position_embeddings
        if trained and inner not in (None, trained):
            raise ValueError(
                f"original_max_position_embeddings={trained} and that of the rope parameters, "
                f"{inner}, must not differ"
            )
        windows = self.use_sliding_window and self.sliding_window is not None
        if windows and (self.max_window_layers or 0) < self.num_hidden_layers:
            count = self.num_hidden_layers - (self.max_window_layers or 0)
            raise ValueError(
                f"sliding_window={self.sliding_window} in {count} of {self.num_hidden_layers} "
                f"layers: {_WINDOWS}"
            )
        return self

    @property
    def rope(self) -> Rope:
        """Under either name."""
        return self.rope_parameters or self.rope_scaling or Rope()


class VisionRope(Schema):
    """What the tower does; files of version 5 say so."""

    rope_type: Literal["axial", "default"] | None = None
    rope_theta: Literal[10000] | None = None


class Vision(Level):
    """The vision tower."""

    depth: Layers
    hidden_size: Size
    intermediate_size: Size
    num_heads: Size
    out_hidden_size: Size
    fullatt_block_indexes: list[int]
    in_channels: Literal[3] | None = None
    in_chans: Literal[3] | None = None
    patch_size: Pixels
    window_size: Pixels
    spatial_merge_size: Annotated[int, Field(ge=1, le=16)]
    temporal_patch_size: Annotated[int, Field(ge=1, le=64)]
    tokens_per_second: Rate | None = None
    hidden_act: Literal["silu"] = "silu"
    rope_parameters: VisionRope | None = None


class DeepVision(Level):
    """A vision tower whose inner layers give features, too."""

    depth: Layers
    hidden_size: Size
    intermediate_size: Size
    num_heads: Size
    out_hidden_size: Size
    num_position_embeddings: Size
    deepstack_visual_indexes: list[int]
    in_channels: Literal[3] = 3
    patch_size: Pixels
    spatial_merge_size: Annotated[int, Field(ge=1, le=16)]
    temporal_patch_size: Annotated[int, Field(ge=1, le=64)]
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    rope_parameters: VisionRope | None = None


class TileEncoder(Level):
    """A CLIP vision tower."""

    num_hidden_layers: Layers
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_channels: Literal[3]
    image_size: Pixels
    patch_size: Pixels
    hidden_act: Literal["quick_gelu"]
    layer_norm_eps: Annotated[float, Field(gt=0, le=0.1)]
    attention_dropout: Zero | None = Field(None, description=_DROPOUT)


class TiledReader(Level):
    """What of a model that reads images in tiles stands beside its tower and decoder."""

    vision_config: dict
    vision_feature_layer: int | None = Field(
        None, description="features of several layers are not supported"
    )
    vision_feature_select_strategy: Literal["default"] | None = Field(
        None, description="with full, a tile has one feature more than patches, and no lines"
    )
    projector_hidden_act: Literal["gelu"] | None = None
    multimodal_projector_bias: bool | None = None
    image_grid_pinpoints: (
        Annotated[
            list[Annotated[list[Size], Field(min_length=2, max_length=2)]], Field(min_length=1)
        ]
        | None
    ) = None
    use_image_newline_parameter: Literal[True] | None = None


class Audio(Level):
    """The audio tower."""

    encoder_layers: Layers
    d_model: Size
    encoder_ffn_dim: Size
    encoder_attention_heads: Size
    num_mel_bins: Size
    n_window: Size
    max_source_positions: Size
    output_dim: Size
    activation_function: Literal["gelu"] = "gelu"
    scale_embedding: Literal[False] = False
    dropout: Zero | None = Field(None, description=_DROPOUT)
    attention_dropout: Zero | None = Field(None, description=_DROPOUT)
    activation_dropout: Zero | None = Field(None, description=_DROPOUT)

    @model_validator(mode="after")
    def _fits(self) -> "Audio":
        if self.n_window > self.max_source_positions:
            raise ValueError(
                f"n_window={self.n_window} exceeds the number of positions, "
                f"max_source_positions={self.max_source_positions}"
            )
        return self


class Reader(Level):
    """The level that describes towers and decoder: of an Omni model, its thinker's."""

    tie_word_embeddings: bool | None = None
    position_id_per_seconds: Rate | None = None
    seconds_per_chunk: Rate | None = None
    text_config: dict | None = None
    vision_config: dict | None = None
    audio_config: dict | None = None
    image_token_id: TokenId | None = None
    image_token_index: TokenId | None = None
    video_token_id: TokenId | None = None
    video_token_index: TokenId | None = None
    audio_token_id: TokenId | None = None
    audio_token_index: TokenId | None = None
    vision_start_token_id: TokenId | None = None
    vision_end_token_id: TokenId | None = None
    audio_start_token_id: TokenId | None = None
    audio_end_token_id: TokenId | None = None


class Whole(Level):
    """The outermost level."""

    model_type: str
    tie_word_embeddings: bool | None = None
    thinker_config: dict | None = None
