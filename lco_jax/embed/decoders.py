"""Decoders of torchcodec, as which `datasets` hands out audio and videos."""

from typing import Any

import numpy as np


def is_decoder(value: object) -> bool:
    """Whether a value is an audio or a video decoder."""
    return hasattr(value, "get_all_samples") or hasattr(value, "get_frames_in_range")


def decoded(value: Any) -> dict[str, Any]:
    """What a decoder holds, as objects of samples or of frames (`T Y X C`) say it."""
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        return {"array": np.asarray(samples.data), "sampling_rate": int(samples.sample_rate)}
    frames = np.asarray(value.get_frames_in_range(0, len(value)).data)
    fps = float(value.metadata.average_fps)
    return {"array": frames.transpose(0, 2, 3, 1), "video_metadata": {"fps": fps}}
