"""Images, audio and frames in memory as lossless files, for items that name their media."""

from pathlib import Path

import av
import numpy as np
import scipy.io.wavfile
from jaxtyping import Float, UInt8
from PIL import Image


def write_image(image: Image.Image, stem: Path) -> str:
    """Write a PNG; returns its path."""
    path = _prepare(stem, ".png")
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    image.save(path)
    return str(path)


def write_audio(samples: Float[np.ndarray, "... N"], sampling_rate: int, stem: Path) -> str:
    """Write a mono WAV file of float32 samples; several channels are averaged."""
    path = _prepare(stem, ".wav")
    samples = np.asarray(samples, np.float32)
    if samples.ndim > 1:
        samples = samples.mean(axis=0)
    scipy.io.wavfile.write(path, int(sampling_rate), samples)
    return str(path)


def write_frames(frames: UInt8[np.ndarray, "T 3 H W"], fps: float, stem: Path) -> str:
    """Write a video of RGB frames (FFV1 in Matroska)."""
    path = _prepare(stem, ".mkv")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=round(fps))
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            drawn = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame.transpose(1, 2, 0), np.uint8), format="rgb24"
            )
            container.mux(stream.encode(drawn))
        container.mux(stream.encode())
    return str(path)


def _prepare(stem: Path, suffix: str) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem.with_name(stem.name + suffix)
