"""Arrays as media: pixels and waveforms in whatever layout their makers keep them."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from lco_jax.data.media.sources import Pixels, Waveform

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FULL_SCALE = {"int16": 2**15, "int32": 2**31}
_MOST_CHANNELS = 8
_HIGHEST_SAMPLE = 2.0
"""Decoders of lossy formats overshoot full scale, by less than this."""
_LIBRARIES = ("numpy", "jax", "jaxlib", "torch")


def is_array(value: object) -> bool:
    """Whether a value is an array of numpy, JAX or torch."""
    library = type(value).__module__.partition(".")[0]
    return library in _LIBRARIES and hasattr(value, "ndim") and hasattr(value, "dtype")


def holds_bytes(array: Any) -> bool:
    """Whether an array, of numpy or torch, is of bytes, as images are."""
    return str(array.dtype).removeprefix("torch.") == "uint8"


def as_numpy(value: Any, field: str) -> np.ndarray:
    """An array of any library on the host.

    Raises:
        ValueError: its library does not hand it over.
    """
    try:
        return np.asarray(value)
    except Exception as error:  # of as many kinds as there are libraries
        raise ValueError(f"{field} is an array that numpy cannot read ({error})") from error


def pixels_of(value: Any, field: str) -> Pixels:
    """An image from an array `Y X` or `Y X C` with 1, 3 (RGB) or 4 (RGBA) channels: bytes, or
    floats between 0 and 1.

    Raises:
        ValueError: another layout, another type, or floats outside of 0..1.
    """
    array = as_numpy(value, field)
    wanted = "expected Y X, or Y X C with 1, 3 (RGB) or 4 (RGBA) channels"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in _MODES or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] in _MODES:
            hint = "; for channels first, give array.transpose(1, 2, 0)"
        if array.ndim == 4:
            hint = '; frames are {"video": array, "fps": 2}, and many images are a list'
        raise ValueError(f"{field} is an array of shape {np.shape(value)}, {wanted}{hint}")
    if np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also of NaN
            raise ValueError(
                f"{field} is an array of floats from {low:g} to {high:g}, expected 0 to 1; divide "
                "by 255, or give it as uint8"
            )
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"{field} is an array of {array.dtype}, expected uint8, or floats between 0 and 1"
        )
    mode = _MODES[array.shape[-1]]
    size = (array.shape[1], array.shape[0])
    image = Image.frombytes(mode, size, np.ascontiguousarray(array).tobytes())
    return Pixels(image, f"{field} (an array of {size[0]} x {size[1]} pixels)")


def waveform_of(given: Mapping[str, Any], field: str) -> Waveform:
    """Audio from `{"array": samples, "sampling_rate": hertz}`. Samples are floats with full scale
    at 1, or integers of 16 or 32 bits; of two axes the shorter one has the channels.

    Raises:
        ValueError: another layout or type, no positive rate, or floats of another scale.
    """
    rate_hz = given["sampling_rate"]
    if not isinstance(rate_hz, Real | np.number) or not 0 < rate_hz < 2**31 or rate_hz % 1:
        raise ValueError(f"{field}.sampling_rate={rate_hz!r} is not a positive number of hertz")
    array = np.asarray(as_numpy(given["array"], f"{field}.array"))
    if array.ndim == 2 and min(array.shape) <= _MOST_CHANNELS:
        channels_first = array.shape[0] <= array.shape[1]
    elif array.ndim == 1:
        array, channels_first = array[None], True
    else:
        raise ValueError(
            f"{field}.array has the shape {array.shape}, expected samples, or at most "
            f"{_MOST_CHANNELS} channels of them"
        )
    if str(array.dtype) in _FULL_SCALE:
        array = array.astype(np.float32) / np.float32(_FULL_SCALE[str(array.dtype)])
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{field}.array is of {array.dtype}, expected floats, int16 or int32")
    elif array.size:
        low, high = float(array.min()), float(array.max())
        if not max(-low, high) <= _HIGHEST_SAMPLE:  # also of NaN
            raise ValueError(
                f"{field}.array has floats from {low:g} to {high:g}, expected full scale at 1; "
                "divide by 32768 what was int16, or give it as int16"
            )
    samples = array.astype(np.float32).mean(axis=0 if channels_first else 1)
    name = f"{field} (a waveform of {len(samples)} samples)"
    return Waveform(np.ascontiguousarray(samples), int(rate_hz), name)
