"""One record for each family of checkpoints: all in which it differs from the others.

A family is such a record, and a table of the same name in `lco_jax.weights.tables`. All other code
reads the record of the model at hand and asks for no names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lco_jax.config import Tower
from lco_jax.models.text_config import DecoderTraits
from lco_jax.models.tokens import Kind
from lco_jax.models.tower_config import AudioConfig, VisionConfig, read_audio, read_vision

AfterVideo = Literal["last", "extent"]
"""Text goes on behind the largest position of a video, or behind the larger of its height and
width; see `mrope_ids`."""


@dataclass(frozen=True)
class TorchMedia:
    """How the classes of transformers read the media of a family."""

    processor: str
    """The class of the joint processor."""
    seconds: str
    """The argument of the model for the seconds from one temporal patch to the next."""
    image_processor: str = "Qwen2VLImageProcessor"
    """With a twin for Pillow, whose name ends in `Pil`."""
    video_processor: str = "Qwen2VLVideoProcessor"
    after_video: AfterVideo = "last"
    """Where the model places the text behind a video."""
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
    towers: Mapping[Tower, Callable[[dict[str, Any], str], VisionConfig | AudioConfig | None]] = (
        field(default_factory=dict)
    )
    tokens: tuple[str, ...] = ()
    """The fields of `MediaTokens` that stand in it."""
    part_types: Mapping[str, str] = field(default_factory=dict)
    """The `model_type` of each part that it nests, by the part's field; as on the hub."""

    # How texts and media become tokens.
    tokenizer: Literal["named", "qwen", "file"] = "named"
    """What transformers reads tokenizers with: the class that the folder names, Qwen2's whatever it
    names, or what takes `tokenizer.json` as it is."""
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
        return tuple(kind for kind in kinds if kind != "video" or self.torch_places_videos(asked))


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
QWEN2_5_OMNI_THINKER = Family(
    "qwen2_5_omni_thinker",
    torch_class="Qwen2_5OmniThinkerForConditionalGeneration",
    towers={"vision": read_vision, "audio": read_audio},
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

_ALL = (QWEN2, QWEN3, LLAMA, MISTRAL, QWEN2_5_VL, QWEN2_5_OMNI, QWEN2_5_OMNI_THINKER)
FAMILIES = {family.name: family for family in _ALL}
"""By name."""
