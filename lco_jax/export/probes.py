"""Items by which an export is compared with the model that it was made from."""

import dataclasses
import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from lco_jax.config import MediaConfig, Memory
from lco_jax.data.encode.encoded import Encoded, Kind
from lco_jax.data.media.config import SAMPLE_RATE_HZ
from lco_jax.data.records import Item
from lco_jax.embed.encoder import Encoder
from lco_jax.train.restore import OpenedModel

GOLDEN_FILE = "golden.json"
"""In an export: token ids and vectors of some probes, by which any server can be checked."""

TEXTS = (
    "a cat",
    "A small cat sleeps on the warm roof of a red car.",
    "  two spaces come first",
    "\n\nA text may begin with empty lines",
    "and end with them, too.\n\n",
    "7",
    "In 1969, 600 million people watched 2 men walk 384,400 km away.",
    "What is the capital of Indonesia?",
    "def area(radius): return 3.14159 * radius ** 2",
    "Die Würde des Menschen ist unantastbar.",
    "東京は日本の首都です。",
    "इंडोनेशिया एक द्वीपसमूह है।",
    "عاصمة مصر هي القاهرة",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ 😀👩‍🚀",
    "cafe\u0301 in another normal form than café",
    "A page of several sentences. " * 16,
)
"""Short and long ones, in several scripts, with white space where tokenizers differ."""

CLIP_FRAMES = 4
"""As few as are always sampled, whatever the rate."""
_NUM_GOLDEN, _NUM_FULL, _NUM_LEADING = 6, 2, 8
_ROW_MULTIPLE = 64
_UNIT_PX = 28
_TEXT_MARK = "@lco-text@"


@dataclasses.dataclass(frozen=True)
class Probe:
    """An item, what we read of it, and how its turn is written."""

    item: Item
    encoded: Encoded
    before: str
    """The turn up to the text; one token stands for each medium."""
    after: str
    """The turn behind the text: prompt and end of the template."""

    @property
    def modality(self) -> str:
        """The kinds of its parts, such as `image+text`."""
        return modality_of(self.item)


@dataclasses.dataclass(frozen=True)
class Probes:
    """Items and their unit vectors, computed by our encoder; the texts come first."""

    probes: tuple[Probe, ...]
    vectors: Float[np.ndarray, "N E"]
    head: list[int]
    """The tokens with which every item begins."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the probes, each once, in order."""
        return tuple(dict.fromkeys(probe.modality for probe in self.probes))

    def write_golden(self, folder: Path) -> None:
        """Write the first texts as `golden.json`, two of them with whole vectors."""
        entries = []
        for index in range(_NUM_GOLDEN):
            vector = self.vectors[index].tolist()
            probe = self.probes[index]
            tokens = self.head + probe.encoded.tokens.tolist()
            entry = {"text": probe.item.text, "token_ids": tokens}
            entry["first_components"] = vector[:_NUM_LEADING]
            if index < _NUM_FULL:
                entry["vector"] = vector
            entries.append(entry)
        content = {"dimension": self.vectors.shape[1], "probes": entries}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / GOLDEN_FILE).write_text(text + "\n", encoding="utf-8")


def modality_of(item: Item) -> str:
    """The kinds of an item's parts, such as `image+text`."""
    parts = (item.images, item.videos, item.audios, item.text)
    return "+".join(
        name for name, part in zip(("image", "video", "audio", "text"), parts, strict=True) if part
    )


def encode_probes(model: OpenedModel, mesh: jax.sharding.Mesh) -> Probes:
    """The probes as `model` embeds them: texts, one of them longer than its recipe allows, and
    items with every kind of medium that it reads.
    """
    processor = model.processor
    # A word and its space are at least one token.
    too_long = "far too long " * (processor.prompter.max_text_tokens // 3 + 1)
    items = [Item(text=text) for text in (*TEXTS, too_long)]
    items += media_items(processor.kinds, processor.media)
    encoded = processor.encode(items)
    # One row length for texts, one for all.
    rows = {_row_tokens([entry for entry in encoded if not entry.media]), _row_tokens(encoded)}
    memory = Memory(row_tokens=tuple(sorted(rows)))
    encoder = Encoder(model.graph, model.params, processor, mesh, memory=memory)
    # Accelerators otherwise shorten float32 products, which torch on a CPU does not.
    with jax.default_matmul_precision("highest"):
        pooled = encoder.encode(items)
    turns = [processor.prompter.render(item, _TEXT_MARK).split(_TEXT_MARK) for item in items]
    return Probes(
        probes=tuple(map(Probe, items, encoded, *zip(*turns, strict=True))),
        vectors=pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
        head=processor.head.tolist(),
    )


def media_items(kinds: Sequence[Kind], media: MediaConfig) -> list[Item]:
    """Small items of every kind in `kinds`, alone, with text and mixed; always the same bytes."""
    video, slow = _video(media, 0, fps=2.0), _video(media, 1, fps=1.0)
    items = [
        Item(images=(_image(0, 90, 61),)),
        Item(images=(_image(1, 40, 230),)),
        Item("A page of a book about birds.", images=(_image(2, 140, 84),)),
        Item("Which of them?", images=(_image(3, 33, 50), _image(4, 150, 28))),
        Item(images=(_image(5, 70, 70), _image(6, 61, 90))),
        Item(videos=(video,)),
        Item("What happens here?", videos=(slow,)),
        Item("Is it the same?", images=(_image(7, 64, 48),), videos=(video,)),
        Item(audios=(_audio(0, 1.3),)),
        Item("Who speaks?", audios=(_audio(1, 2.7),)),
        Item("All at once.", images=(_image(8, 64, 48),), audios=(_audio(2, 0.4),)),
    ]
    wanted = {*kinds, "text"}
    return [item for item in items if set(modality_of(item).split("+")) <= wanted]


def _row_tokens(encoded: Sequence[Encoded]) -> int:
    longest = max(len(entry.tokens) for entry in encoded)
    return -(-longest // _ROW_MULTIPLE) * _ROW_MULTIPLE


def _image(seed: int, width: int, height: int) -> bytes:
    return _encode(_scene(seed, width, height), "PNG")


def _video(media: MediaConfig, seed: int, fps: float) -> bytes:
    """Frames of the smallest size that needs no scaling: libraries scale videos each in its way."""
    side = _UNIT_PX * int(np.ceil(np.sqrt(media.video_min_pixels) / _UNIT_PX))
    first, *rest = (_scene(seed + 0.2 * time, side, side) for time in range(CLIP_FRAMES))
    return _encode(
        first, "WEBP", save_all=True, append_images=rest, lossless=True, duration=int(1000 / fps)
    )


def _scene(seed: float, width: int, height: int) -> Image.Image:
    """Smooth waves of colour, other ones for every seed."""
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin((2 + seed) * x + c) * np.cos((3 - seed) * y + seed * c) for c in range(3)]
    return Image.fromarray((127.5 * (1 + np.stack(waves, -1))).astype(np.uint8))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _audio(seed: int, seconds: float) -> bytes:
    """Gliding tones as a WAV file."""
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tones = np.sin(2 * np.pi * (200 + 150 * seed + 300 * time) * time) * np.cos(5 * time)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((8000 * tones).astype("<i2").tobytes())
    return content.getvalue()
