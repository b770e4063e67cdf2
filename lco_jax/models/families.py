"""One record for each family of checkpoints: all in which it differs from the others.

A family is such a record, and a table of the same name in `lco_jax.weights.tables`. All other code
reads the record of the model at hand and asks for no names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lco_jax.config import Tower
from lco_jax.models.deep_config import DeepConfig, read_deep
from lco_jax.models.text_config import DecoderTraits
from lco_jax.models.tile_config import TileConfig, read_tiles
from lco_jax.models.tokens import Kind
from lco_jax.models.tower_config import AudioConfig, VisionConfig, read_audio, read_vision

TowerConfig = VisionConfig | DeepConfig | TileConfig | AudioConfig
"""Sizes of a tower of any kind."""

AfterVideo = Literal["last", "extent"]
"""Text goes on behind the largest position of a video, or behind the larger of its height and
width; see `mrope_ids`."""


@dataclass(frozen=True)
class TorchMedia:
    """How the classes of transformers read the media of a family."""

    processor: str
    """The class of the joint processor."""
    seconds: str = ""
    """The argument of the model for the seconds from one temporal patch to the next; empty: it does
    not ask."""
    image_processor: str = "Qwen2VLImageProcessor"
    """With a twin for Pillow, whose name ends in `Pil`."""
    image_sizes: str = "image_grid_thw"
    """What it tells of the sizes of images, besides their pixels."""
    video_processor: str | None = "Qwen2VLVideoProcessor"
    """None: the family reads no videos."""
    after_video: AfterVideo = "last"
    """Where the model places the text behind a video."""
    bounds_frames: bool = True
    """Whether its processor of videos has bounds for the pixels of a frame, as runs have, or for
    those of all frames together."""
    needs_kinds: bool = False
    """Whether it finds positions from the kind of each token, not from the tokens alone."""


@dataclass(frozen=True)
class Family:
    """What sets the checkpoints of one `model_type` apart."""

    name: str
    """The `model_type` in `config.json`."""
    torch_class: str
    """Of transformers, with a place for every tensor; its `model` gives the states."""
    thinker: "Family | None" = None
    """Of checkpoints that also speak: what the part that reads is by itself. Their `config.json`
    describes it under `thinker_config`, and `torch_class` loads it alone."""

    # What config.json says of the model.
    decoder: DecoderTraits = field(default_factory=DecoderTraits)
    decoders: Mapping[str, DecoderTraits] = field(default_factory=dict)
    """Instead, where it may be of several families: by the `model_type` of its `text_config`, the
    first of which counts where that says nothing."""
    towers: Mapping[Tower, Callable[[dict[str, Any], str, int], TowerConfig | None]] = field(
        default_factory=dict
    )
    """What reads their sizes, from a config, its name, and the decoder's width."""
    has_axes: bool = False
    """Whether tokens of images and videos have places in rows and columns (M-RoPE)."""
    tokens: tuple[str, ...] = ()
    """The fields of `MediaTokens` that stand in it."""
    part_types: Mapping[str, str] = field(default_factory=dict)
    """The `model_type` of each part that it nests, by the part's field; as on the hub."""

    # How texts and media become tokens.
    tokenizer: Literal["named", "qwen", "file"] = "named"
    """What transformers reads tokenizers with: the class that the folder names, Qwen2's whatever it
    names, or what takes `tokenizer.json` as it is."""
    writes_times: bool = False
    """Whether each temporal patch of a video stands between tokens of its own, behind its time as a
    text; otherwise a medium is one run of tokens."""
    video_rate: Literal["own", "asked"] = "own"
    """Frames are as far apart as in the file, or as they were asked for."""
    audio_takes_turns: bool = False
    """Whether a video can be read with its audio, whose tokens take turns with its own."""
    torch_media: TorchMedia | None = None
    """None: the family reads texts alone."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of media that its checkpoints may read."""
        return tuple(kind for kind in ("image", "video", "audio") if kind in self.tokens)

    def reader_level(self, config: dict[str, Any]) -> dict[str, Any]:
        """What of a `config.json` describes towers and decoder."""
        return config["thinker_config"] if self.thinker else config

    def traits(self, outer: Mapping[str, Any], where: str) -> DecoderTraits:
        """Of the decoder that a config describes.

        Raises:
            ValueError: it nests a part of another kind than the model may have.
        """
        if not self.decoders:
            return self.decoder
        allowed = {part: (kind,) for part, kind in self.part_types.items()}
        allowed["text_config"] = tuple(self.decoders)
        found = {part: (outer.get(part) or {}).get("model_type") for part in allowed}
        for part, kind in found.items():
            if kind not in (None, *allowed[part]):
                raise ValueError(
                    f"{where}: {part}: model_type={kind!r} is not supported in a {self.name} "
                    f"model; supported are {allowed[part]}"
                )
        return self.decoders[found["text_config"] or allowed["text_config"][0]]

    def after_video(self, asked: AfterVideo) -> AfterVideo:
        """Where text goes on behind a video, if a run asked for one of the two.

        Only where transformers differs from what the models were trained with there is a choice.
        """
        return asked if self.torch_media and self.torch_media.after_video == "extent" else "last"

    def torch_places_videos(self, asked: AfterVideo) -> bool:
        """Whether transformers finds our positions of the text behind a video by itself."""
        return self.torch_media is None or self.torch_media.after_video == self.after_video(asked)

    def readable_kinds(self, kinds: Iterable[Kind], asked: AfterVideo) -> tuple[Kind, ...]:
        """Those of the kinds that sentence-transformers can read in an export."""
        reads_videos = (
            self.torch_media is not None
            and self.torch_media.bounds_frames
            and self.torch_places_videos(asked)
        )
        return tuple(kind for kind in kinds if kind != "video" or reads_videos)


_VISION_TOKENS = ("image", "video", "vision_start", "vision_end")

QWEN2 = Family("qwen2", torch_class="Qwen2ForCausalLM", tokenizer="qwen")
_COMMON = {"rms_norm_eps": 1e-6, "rope_theta": 1e4}
LLAMA = Family(
    "llama",
    torch_class="LlamaForCausalLM",
    decoder=DecoderTraits(biases="asked", assumed=_COMMON),
)
MISTRAL = Family(
    "mistral",
    torch_class="MistralForCausalLM",
    decoder=DecoderTraits(
        biases="none",
        assumed={
            **_COMMON,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            # It has no such fields: a window holds in all layers.
            "use_sliding_window": True,
            "max_window_layers": 0,
        },
    ),
    tokenizer="file",
)
QWEN3 = Family(
    "qwen3",
    torch_class="Qwen3ForCausalLM",
    decoder=DecoderTraits(
        biases="asked",
        has_qk_norm=True,
        assumed={**_COMMON, "head_dim": 128, "num_key_value_heads": 32},
    ),
)
QWEN2_5_VL = Family(
    "qwen2_5_vl",
    torch_class="Qwen2_5_VLForConditionalGeneration",
    towers={"vision": read_vision},
    has_axes=True,
    tokens=_VISION_TOKENS,
    part_types={"text_config": "qwen2_5_vl_text", "vision_config": "qwen2_5_vl"},
    torch_media=TorchMedia(
        processor="Qwen2_5_VLProcessor",
        seconds="second_per_grid_ts",
        # Version 5 does so; the models were trained with "last".
        after_video="extent",
        needs_kinds=True,
    ),
)
QWEN3_VL = Family(
    "qwen3_vl",
    torch_class="Qwen3VLForConditionalGeneration",
    decoder=replace(
        QWEN3.decoder,
        interleaves_axes=True,
        assumed={**QWEN3.decoder.assumed, "rope_theta": 5e5},
    ),
    towers={"vision": read_deep},
    has_axes=True,
    tokens=_VISION_TOKENS,
    part_types={"text_config": "qwen3_vl_text", "vision_config": "qwen3_vl"},
    writes_times=True,
    torch_media=TorchMedia(
        processor="Qwen3VLProcessor",
        video_processor="Qwen3VLVideoProcessor",
        bounds_frames=False,
        needs_kinds=True,
    ),
)
QWEN2_5_OMNI_THINKER = Family(
    "qwen2_5_omni_thinker",
    torch_class="Qwen2_5OmniThinkerForConditionalGeneration",
    towers={"vision": read_vision, "audio": read_audio},
    has_axes=True,
    tokens=(*_VISION_TOKENS, "audio", "audio_start", "audio_end"),
    part_types={
        "text_config": "qwen2_5_omni_text",
        "vision_config": "qwen2_5_omni_vision_encoder",
        "audio_config": "qwen2_5_omni_audio_encoder",
    },
    video_rate="asked",
    audio_takes_turns=True,
    torch_media=TorchMedia(processor="Qwen2_5OmniProcessor", seconds="video_second_per_grid"),
)
QWEN2_5_OMNI = replace(QWEN2_5_OMNI_THINKER, name="qwen2_5_omni", thinker=QWEN2_5_OMNI_THINKER)

_SIZES = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
"""Of decoders that stand in a file by what differs from them."""
LLAVA_NEXT = Family(
    "llava_next",
    torch_class="LlavaNextForConditionalGeneration",
    decoders={
        family.name: replace(
            family.decoder, assumed={**_SIZES, "intermediate_size": width, **family.decoder.assumed}
        )
        for family, width in ((LLAMA, 11008), (MISTRAL, 14336))
    },
    towers={"vision": read_tiles},
    tokens=("image",),
    part_types={"text_config": LLAMA.name, "vision_config": "clip_vision_model"},
    tokenizer="file",
    torch_media=TorchMedia(
        processor="LlavaNextProcessor",
        image_processor="LlavaNextImageProcessor",
        image_sizes="image_sizes",
        video_processor=None,
    ),
)

_ALL = (QWEN2, QWEN3, LLAMA, MISTRAL, QWEN2_5_VL, QWEN3_VL, LLAVA_NEXT)
_ALL += (QWEN2_5_OMNI, QWEN2_5_OMNI_THINKER)
FAMILIES = {family.name: family for family in _ALL}
"""By name."""
