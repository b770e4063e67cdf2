"""What the model reads, and held-out data."""

from dataclasses import dataclass, field
from typing import Literal

from lco_jax.config.checks import require


@dataclass(frozen=True)
class JsonlSource:
    """JSON Lines: triplets or pairs (the format of the official repository, or its superset), or
    prompts with responses for a generative stage.
    """

    path: str
    weight: float = 1.0
    """Relative share of the mixture."""
    max_examples: int | None = None

    def __post_init__(self):
        _check_source(self)


@dataclass(frozen=True)
class TableSource:
    """Files of one's own: CSV, TSV, parquet and JSON Lines, all but parquet also `.gz`; several are
    read as one.
    """

    paths: tuple[str, ...]
    """Files, folders of them, or patterns such as `shards/*.jsonl`, local or `gs://`."""
    columns: tuple[tuple[str, str], ...] = ()
    """What is what: pairs of a column and its role, such as `("query", "anchor")`. Roles are
    `anchor`, `positive`, `negative` (of any number of columns) and `id`, in generative stages
    `prompt` and `response`; `anchor.image_path` and the like are media. Empty: columns are called
    like their roles, and objects of JSON Lines are as a `JsonlSource` has them."""
    media_root: str | None = None
    """Folder of relative media paths (None: that of each file)."""
    weight: float = 1.0
    max_examples: int | None = None

    def __post_init__(self):
        _check_source(self)
        require(bool(self.paths), "TableSource has no paths; name at least one file")


@dataclass(frozen=True)
class Columns:
    """Which features of a prepared dataset make an example; `"a/b"` is the feature `b` within `a`.

    The anchor is what is named of `anchor`, `image`, `audio` and `video`, together. Media are the
    bytes of files, one or several.
    """

    positive: str
    """Text that belongs to the anchor, and the response of a generative stage unless the source
    names another; the members of a list are joined by commas."""
    anchor: str | None = None
    """Text."""
    image: str | None = None
    audio: str | None = None
    video: str | None = None
    negatives: tuple[str, ...] = ()
    """Texts, or lists of them."""
    id: str | None = None
    aliases: tuple[tuple[str, str], ...] = ()
    """Further names that records have for features: pairs such as `("name", "names/id")`."""

    def __post_init__(self):
        require(
            any((self.anchor, self.image, self.audio, self.video)),
            f"{self} names no anchor; say which feature is its text, image, audio or video",
        )


Misreading = Literal["heard", "seen"]
"""How an imperfect reader passes texts on."""


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS dataset in array_record format."""

    name: str
    """A known dataset with optional config, e.g. `"wordnet"` or `"parallel_pairs/en-id"`, or the
    folder of one's own within `data_dir`: `NAME[/CONFIG][/VERSION]`, by default the newest
    version."""
    split: str = "train"
    data_dir: str | None = None
    """Where datasets are prepared (None: `~/.cache/lco_jax/tfds`)."""
    weight: float = 1.0
    max_examples: int | None = None
    prompt: str | None = ""
    """Generative stages: what is asked about the image or text of each record (None: nothing is
    shown and asked, the response is plain text)."""
    response: str | None = None
    """Generative stages: the field that answers (None: the positive, which is `name` of images
    and `transcript` of speech); the members of a list are joined by commas."""
    columns: Columns | None = None
    """What is what in the records (None: as the dataset is known for, or as its features are called
    like those of known ones)."""
    misread: Misreading | None = None
    """Contrastive stages: pairs of texts alone, several of each record, whose media are left out:
    the positive, and as its anchor what an imperfect reader makes of it. `heard`: its words in
    order, some missed, mistaken or broken off. `seen`: some words of all texts of the record, and
    of the feature `response`, in no order and among words of other records."""

    def __post_init__(self):
        _check_source(self)


Source = JsonlSource | TfdsSource | TableSource


def _check_source(source: Source) -> None:
    require(source.weight > 0, f"weight={source.weight} of {source} must be positive")
    require(
        source.max_examples is None or source.max_examples > 0,
        f"max_examples={source.max_examples} of {source} leaves no example; give a positive "
        "number, or leave it out to read all",
    )


@dataclass(frozen=True)
class MediaLimits:
    """What a medium may cost; one that costs more is unreadable, and is not read to its end.
    Vectors do not depend on them.
    """

    max_pixels: int = 89_478_485
    """Of an image or a frame (Pillow's own threshold for decompression bombs)."""
    max_file_frames: int = 200_000
    """Of a whole video, sampled or not: two hours at 25 frames a second fit."""
    max_decoded_pixels: int = 400_000_000_000
    """Of all frames of a video together: two hours of 1920 x 1080 at 25 frames a second fit."""
    max_decoded_seconds: float = 86_400.0
    """Of audio, from its beginning to the end of the part that is read."""
    max_decoding_seconds: float = 600.0
    """Of the clock, for a video or audio file."""

    def __post_init__(self):
        values = (
            *(self.max_pixels, self.max_file_frames, self.max_decoded_pixels),
            *(self.max_decoded_seconds, self.max_decoding_seconds),
        )
        require(min(values) > 0, f"limits must be positive, got {self}")


@dataclass(frozen=True)
class MediaConfig:
    """How images, videos and audio are read: larger ones are scaled down, longer ones thinned out.

    Source: LCO-Emb model cards (pixels of an image); qwen-vl-utils (videos).
    """

    image_min_pixels: int = 56 * 56
    image_max_pixels: int = 1280 * 28 * 28
    """Larger images are scaled down to this, 1,280 tokens; document tasks gain from more."""
    video_fps: float = 2.0
    """Frames read per second of video."""
    video_max_frames: int = 64
    video_min_pixels: int = 128 * 28 * 28
    """Of each frame; smaller ones are scaled up."""
    video_max_pixels: int = 768 * 28 * 28
    video_max_total_pixels: int = 115_200 * 28 * 28
    """Of all pairs of frames of a video together; longer videos get smaller frames."""
    after_video: Literal["last", "extent"] = "last"
    """Where the positions of text continue after a video: behind its last position, as the models
    were trained, or behind its height and width, as transformers 5 does for Qwen2.5-VL."""
    audio_max_seconds: float = 300.0
    audio_when_longer: Literal["cut", "refuse"] = "cut"
    """Refused recordings are unreadable; see `on_error`."""
    audio_in_video: bool = False
    """Whether the audio track of a video is read with it (Omni; off in the paper)."""
    audio_features: Literal["all", "tokens"] = "all"
    """What embedding reads of a recording. `all`: the features of the audio tower, as in training
    and in transformers. `tokens`: a text, of the tokens whose embeddings the features are nearest
    to for a while; for towers that an alignment stage has trained to match token embeddings."""
    image_features: Literal["all", "tokens"] = "all"
    """Likewise of an image; with `tokens`, the text is of the words that all its features together
    are nearest to."""
    limits: MediaLimits = field(default_factory=MediaLimits)
    """They may change when a run resumes."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether a record that cannot be used stops the run (`raise`) or is left out (`skip`). With
    `skip`, an example whose media are damaged, that is too long or that fails in any other way is
    replaced by another and counted, and a row of a table that is invalid is left out."""


ControlTokensRead = Literal["characters", "tokens"]
"""How control tokens in texts are read."""
ProfileName = Literal["lco", "mteb", "qwen3-embedding", "qwen3-vl-embedding", "e5-v"]
"""Of a prompt recipe."""
WITHOUT_ANSWERS: tuple[ProfileName, ...] = ("qwen3-embedding", "qwen3-vl-embedding", "e5-v")
"""Recipes for embedding alone."""


@dataclass(frozen=True)
class DataConfig:
    """What the model reads and how an item becomes a prompt."""

    sources: tuple[Source, ...]
    batch_size: int = 1056
    """Examples (triplets, or prompts with responses) of one optimizer step, over all devices."""
    num_negatives: int = 1
    """Hard negatives per anchor; examples with fewer leave the slot empty."""
    homogeneous: bool = False
    """Each batch comes from one source (chosen by weight) instead of a mix."""
    shuffled_positives: bool = False
    """A control: each anchor is paired with the positive and the negatives of another example of
    its source, the same in every pass. The texts are the same, and say nothing about each other."""
    max_text_tokens: int | None = None
    """Text is cut to this many tokens before the prompt is appended (None: 650 with profile `lco`,
    300 with `mteb`, 8,191 with `qwen3-embedding`, 8,000 with `qwen3-vl-embedding` and `e5-v`)."""
    profile: ProfileName = "lco"
    """Prompt recipe, stored with every run and export. `qwen3-embedding` writes no turns: a text
    and the token that ends it; what is to stand before queries belongs into the data.
    `qwen3-vl-embedding` and `e5-v` write the turns of these models."""
    control_tokens: ControlTokensRead = "characters"
    """What `<|im_end|>`, `<|IMAGE|>` and the like mean in texts: the characters that they are
    written with, as texts are data; or the tokens of these names, as transformers reads them. Those
    of the chat template itself are tokens always."""
    media: MediaConfig = field(default_factory=MediaConfig)

    def __post_init__(self):
        require(bool(self.sources), "data.sources is empty; name at least one source")
        require(self.batch_size > 0, f"batch_size={self.batch_size} must be positive")
        require(self.num_negatives >= 0, f"num_negatives={self.num_negatives} is negative")
        most = self.max_text_tokens
        require(most is None or most > 0, f"max_text_tokens={most} leaves nothing of a text")


@dataclass(frozen=True)
class Evaluation:
    """Held-out pairs (anchor → positive) on which retrieval is measured while training."""

    source: Source
    every_steps: int | None = None
    """None: only before the first and after the last step."""
    num_pairs: int | None = 200
    metric: Literal["recall@1", "recall@10", "mrr"] = "mrr"
    """Decides which checkpoint is best."""
    others: tuple[Source, ...] = ()
    """More held-out pairs, such as images and their names, which find each other in both
    directions; their figures decide nothing."""

    def __post_init__(self):
        require(
            self.num_pairs is None or self.num_pairs > 0,
            f"evaluation.num_pairs={self.num_pairs} measures nothing; give a positive number, or "
            "leave evaluation out",
        )
