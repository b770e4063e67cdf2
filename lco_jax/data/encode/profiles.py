"""Prompt recipes by name: what is written around items, and how they are cut."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from lco_jax.config import MediaConfig, ProfileName
from lco_jax.models.tokens import Kind

MIXTURE = "mixture"
"""What an item is called that has a text and media, or media of several kinds."""


class Asked(NamedTuple):
    """What is written around the media and the text of an item, in this order."""

    after: str
    before: str = ""
    between: str = ""
    """Behind the media, before the text."""


def _one_word(kind: str) -> Asked:
    return Asked(f"\nSummarize the above {kind} in one word:")


_ONE_WORD = {
    **{kind: _one_word(kind) for kind in ("text", "image", "video", "audio")},
    MIXTURE: Asked("\nSummarize the above in one word:"),
}


@dataclass(frozen=True)
class Profile:
    """How items are written."""

    max_text_tokens: int
    order: tuple[Kind, ...] = ()
    """Of the media of an item; its text follows."""
    dominant: tuple[Kind, ...] = ()
    """A mixture is called by the first of these that it has; empty: by none."""
    takes_empty: bool = False
    """Whether a text of no characters has a vector."""
    asked: Mapping[str, Asked] = field(default_factory=lambda: _ONE_WORD)
    """By the kind of an item."""
    has_turns: bool = True
    """Whether an item is a turn of the checkpoint's chat template. Otherwise it is a text between
    the tokens that the tokenizer puts around one, of which the last is pooled."""
    turn: tuple[str, str] | None = None
    """Where there are no such turns: what stands between these tokens and an item."""
    markup: Mapping[Kind, str] = field(default_factory=dict)
    """And what stands for a medium."""
    nothing: str = ""
    """The text of an item that has neither text nor media."""
    media: MediaConfig | None = None
    """How media are read unless a caller says otherwise (None: as ever)."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What stands before texts, by name: of queries, where they are not written as documents."""


_CONTROL = re.compile(r"<\|?\w+\|?>")
_E5_V = {
    "text": Asked("\nSummary above sentence in one word: "),
    "image": Asked("\nSummary above image in one word: "),
    MIXTURE: Asked(
        '" Describe modified image in one word: [/INST]', "[INST] ", ' Modify this image with "'
    ),
}
_QWEN3_VL_UNIT = 32**2
"""Pixels of a token."""
_QWEN3_VL = Profile(
    8000,
    ("video", "image"),
    takes_empty=True,
    asked=dict.fromkeys(("text", "image", "video", MIXTURE), Asked("")),
    has_turns=False,
    turn=(
        "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    markup={kind: f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video")},
    nothing="NULL",
    media=MediaConfig(
        image_min_pixels=4 * _QWEN3_VL_UNIT,
        image_max_pixels=1800 * _QWEN3_VL_UNIT,
        video_fps=1.0,
        video_max_frames=64,
        video_min_pixels=128 * _QWEN3_VL_UNIT,
        video_max_pixels=768 * _QWEN3_VL_UNIT,
        video_max_total_pixels=7680 * _QWEN3_VL_UNIT,
    ),
)
_TASK = "Given a web search query, retrieve relevant passages that answer the query"
# Source: LCO-Emb released trainers and README (lco); mteb's LCO-Embedding wrapper (mteb); the
# settings of Qwen3-Embedding for sentence-transformers, mteb's Qwen3 wrapper (qwen3-embedding);
# the released script of Qwen3-VL-Embedding (qwen3-vl-embedding), which cuts whole turns to 8,192
# tokens; E5-V's model card, mteb's E5VModel (e5-v), which cut no texts: the decoder was trained on
# 8,192 tokens.
PROFILES: dict[ProfileName, Profile] = {
    "lco": Profile(650, ("image", "video", "audio")),
    "mteb": Profile(
        300, ("video", "audio", "image"), ("image", "video", "audio"), takes_empty=True
    ),
    "qwen3-embedding": Profile(
        8191,
        takes_empty=True,
        asked={"text": Asked("")},
        has_turns=False,
        prompts={"query": f"Instruct: {_TASK}\nQuery:"},
    ),
    "qwen3-vl-embedding": _QWEN3_VL,
    "e5-v": Profile(
        8000,
        ("image",),
        takes_empty=True,
        asked=_E5_V,
        has_turns=False,
        turn=(
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n",
        ),
        markup={"image": "<image>"},
    ),
}


def check_profile(name: str) -> None:
    """Refuse a prompt recipe that is not here.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(name, str) or name not in PROFILES:
        raise ValueError(f"profile={name!r} is none of {list(get_args(ProfileName))}")


def default_media(name: ProfileName) -> MediaConfig:
    """How media are read with a recipe unless a caller says otherwise.

    Raises:
        ValueError: there is no recipe of that name.
    """
    check_profile(name)
    return PROFILES[name].media or MediaConfig()


def check_tokens(name: ProfileName, vocabulary: Collection[str], place: Any) -> None:
    """Refuse a tokenizer for which what a recipe writes as control tokens are none.

    Args:
        place: what errors call the tokenizer.

    Raises:
        ValueError: it lacks some.
    """
    profile = PROFILES[name]
    written = "".join((*(profile.turn or ()), *profile.markup.values()))
    missing = sorted({*_CONTROL.findall(written)} - {*vocabulary})
    if missing:
        raise ValueError(
            f"{place}: the tokenizer lacks {', '.join(missing)}, which the profile {name!r} "
            "writes; use it with models that were trained with it, or another profile"
        )
