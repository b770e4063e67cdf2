"""Videos of emoji that move, grow or turn: what one shows depends on the order of its frames.

Every video has a mirror in time with the opposite caption, so a model that sees a video as a bag of
frames tells none from its mirror.
"""

import math
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lco_jax.data.records import Item
from lco_jax.embed.media_files import write_frames
from lco_jax.evaluate.tasks import ENGLISH, ChoiceTask, RetrievalTask, Task

NUM_EMOJI = 16
FPS = 2.0
"""As the recipe samples, so every frame is seen."""
NUM_FRAMES = 8
SIDE_PX = 112
_STEP_PX = 7
_LICENCE = "https://www.unicode.org/license.txt"

Place = tuple[float, float, float, float]
"""Centre of the emoji in pixels, its scale, and its angle in degrees."""
_MIDDLE = SIDE_PX / 2


def _moved(shift: float, across: bool) -> Place:
    x, y = (_MIDDLE + shift, _MIDDLE) if across else (_MIDDLE, _MIDDLE + shift)
    return x, y, 1.0, 0.0


# For a time from -1 to 1. The first caption is that of rising time, the second of the mirror.
MOTIONS: tuple[tuple[str, str, Callable[[float], Place]], ...] = (
    (
        "moves from left to right",
        "moves from right to left",
        lambda t: _moved(_STEP_PX * NUM_FRAMES / 2 * t, across=True),
    ),
    (
        "moves from top to bottom",
        "moves from bottom to top",
        lambda t: _moved(_STEP_PX * NUM_FRAMES / 2 * t, across=False),
    ),
    ("grows", "shrinks", lambda t: (_MIDDLE, _MIDDLE, math.exp(0.6 * t), 0.0)),
    ("turns right", "turns left", lambda t: (_MIDDLE, _MIDDLE, 1.0, -60.0 * t)),
)


def frames_of(image: Image.Image, place: Callable[[float], Place]) -> UInt8[np.ndarray, "T 3 H W"]:
    """The frames of a video in which time rises."""
    frames = []
    for time in np.linspace(-1, 1, NUM_FRAMES):
        x, y, scale, angle = place(float(time))
        size = [max(1, round(scale * side)) for side in image.size]
        drawn = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        drawn = drawn.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
        canvas = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
        canvas.paste(drawn, (round(x - size[0] / 2), round(y - size[1] / 2)))
        frames.append(np.asarray(canvas).transpose(2, 0, 1))
    return np.stack(frames)


def moving_emoji_tasks(records: Sequence[dict], archive: Path, folder: Path) -> Iterable[Task]:
    """Videos find their captions, captions their videos, and videos the right one of two captions.

    Args:
        records: emoji with English `names`; the first ones with different names are taken.
        archive: zip file of their images.
        folder: where videos are written to.
    """
    chosen = list({record["names"]["en"]: record for record in records}.values())[:NUM_EMOJI]
    paths, captions, opposites = [], [], []
    with zipfile.ZipFile(archive) as images:
        for record in chosen:
            name = record["names"]["en"]
            for number, (forward, backward, place) in enumerate(MOTIONS):
                stems = [folder / f"{record['id']}-{number}-{way}" for way in ("a", "b")]
                paths += _write(stems, images, record, place)
                captions += [f"{name} that {forward}", f"{name} that {backward}"]
                opposites += [f"{name} that {backward}", f"{name} that {forward}"]
    videos = tuple(Item(videos=(path,)) for path in paths)
    texts = tuple(map(Item, captions))
    common = {"languages": (ENGLISH,), "licence": _LICENCE}
    yield RetrievalTask(
        "MovingEmojiV2T", "A video finds its caption.", queries=videos, documents=texts, **common
    )
    yield RetrievalTask(
        "MovingEmojiT2V", "A caption finds its video.", queries=texts, documents=videos, **common
    )
    yield ChoiceTask(
        "MovingEmojiOrder",
        "A video is nearer to its caption than to that of the same frames in reverse.",
        queries=videos,
        right=texts,
        wrong=tuple(map(Item, opposites)),
        **common,
    )


def _write(stems, images: zipfile.ZipFile, record: dict, place) -> list[str]:
    """The paths of a video and of its mirror; those that exist are not drawn again."""
    paths = [stem.with_name(stem.name + ".mkv") for stem in stems]
    if not all(path.exists() for path in paths):
        with images.open(f"{record['id']}.png") as file:
            frames = frames_of(Image.open(file), place)
        for stem, ordered in zip(stems, (frames, frames[::-1]), strict=True):
            write_frames(ordered, FPS, stem)
    return [str(path) for path in paths]
