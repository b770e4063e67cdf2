"""Videos: the right frames at the right rate, in transformers' order; bad files end in an error."""

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as hf_resize

from lco_jax.config import MediaLimits
from lco_jax.data.media import footage, video
from lco_jax.data.media.config import PixelConfig, VideoConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import image_patches
from lco_jax.data.media.video import (
    SampledVideo,
    frame_size,
    load_video,
    sample_indices,
    seconds_per_grid,
    video_patches,
)
from tests.data.media_files import (
    BAD_VIDEOS,
    PLAYLIST,
    animation,
    cut,
    encode,
    greys,
    noise,
    random_image,
    scratched,
    turned,
    video_file,
)
from tests.patches import pixels_of

TINY = PixelConfig(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
TINY_VIDEOS = VideoConfig(pixels=TINY)


def levels(sampled: SampledVideo) -> list[int]:
    """Which frames of `greys(range(0, 10 * n, 10))` a video holds, by their shade."""
    means = sampled.frames.reshape(len(sampled.frames), -1).mean(1)
    assert np.abs(means - 10 * np.round(means / 10)).max() < 3
    return np.round(means / 10).astype(int).tolist()


# ------------------------------------------------------------------------------------- sampling


def upstream_indices(total: int, fps: float, config: VideoConfig) -> list[int]:
    """The rule of qwen-vl-utils in its own words: round up, round down, clamp, spread."""
    least = int(np.ceil(config.min_frames / 2) * 2)
    most = int(np.floor(min(config.max_frames, total) / 2) * 2)
    count = min(min(max(total / fps * config.fps, least), most), total)
    count = int(np.floor(count / 2) * 2)
    return torch.linspace(0, total - 1, count, dtype=torch.float64).round().long().tolist()


def test_sampling_equals_upstream():
    rng = random.Random(0)
    for _ in range(2000):
        total = rng.randint(2, 3000)
        fps = rng.choice([1.0, 5.0, 24.0, 25.0, 30000 / 1001, 60.0, rng.uniform(0.2, 90)])
        config = VideoConfig(
            fps=rng.choice([0.5, 1.0, 2.0, 4.0, 30.0]),
            min_frames=rng.choice([2, 4, 5]),
            max_frames=rng.choice([6, 7, 32, 768]),
        )
        indices = sample_indices(total, fps, config).tolist()
        assert indices == upstream_indices(total, fps, config)
        assert sorted(set(indices)) == indices
    assert sample_indices(1, 25.0, VideoConfig()).tolist() == [0]
    assert sample_indices(9, 25.0, VideoConfig(min_frames=1, max_frames=1)).tolist() == [0]


def test_size_shares_the_total():
    # Source: transformers Qwen2VLVideoProcessor.resize, `cap_pixels_per_frame=True`.
    config = VideoConfig()
    for num_frames in (1, 2, 301, 400, 767, 768):
        budget = int(128_000 * 28 * 28 * 0.9) * 2 // num_frames
        most = max(min(768 * 28 * 28, budget), int(128 * 28 * 28 * 1.05))
        for height, width in ((1080, 1920), (640, 480), (99, 1111)):
            expected = hf_resize(height, width, 28, 128 * 28 * 28, most)
            assert frame_size(height, width, num_frames, config) == expected
    crowded = VideoConfig(max_total_pixels=1)
    height, width = frame_size(480, 640, 768, crowded)
    assert height * width <= 1.05 * crowded.pixels.min_pixels


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "mpeg4"),
        ("matroska", "libx264"),
        ("webm", "libvpx-vp9"),
        ("avi", "mpeg4"),
        ("mpegts", "libx264"),
    ],
)
def test_frames_of_containers(tmp_path, container, codec):
    path = tmp_path / "video.dat"  # the content says what it is
    path.write_bytes(video_file(container, greys(range(0, 250, 10)), codec=codec))
    sampled = load_video(str(path), TINY_VIDEOS)
    assert levels(sampled) == [0, 8, 16, 24]
    assert sampled.frames.shape[1:] == (*frame_size(48, 64, 4, TINY_VIDEOS), 3)
    assert sampled.fps == 4 / 25 * 10
    assert seconds_per_grid(sampled, TINY_VIDEOS) == 2 / sampled.fps
    dense = load_video(str(path), VideoConfig(fps=100.0, pixels=TINY))
    assert levels(dense) == sample_indices(25, 10.0, VideoConfig(fps=100.0)).tolist()


@pytest.mark.parametrize("fps", [1, 5, 24, 30, Fraction(30000, 1001)])
def test_rate_of_the_sample(tmp_path, fps):
    path = tmp_path / "video.mp4"
    path.write_bytes(video_file("mp4", greys([0] * 61), fps=fps))
    sampled = load_video(str(path), TINY_VIDEOS)
    assert sampled.fps == len(sampled.frames) / 61 * float(fps)


def test_frames_that_are_never_shown_do_not_count(tmp_path, monkeypatch):
    def count_invisible_ones(*arguments: object) -> footage.Footage:
        return read(*arguments)._replace(num_frames=32)

    read = footage.read_footage
    monkeypatch.setattr(video, "read_footage", count_invisible_ones)
    path = tmp_path / "video.webm"
    path.write_bytes(video_file("webm", greys(range(0, 250, 10)), codec="libvpx"))
    sampled = load_video(str(path), TINY_VIDEOS)
    assert levels(sampled) == [0, 8, 16, 24]
    assert sampled.fps == 4 / 25 * 10


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_telephones_record_sideways(tmp_path, degrees):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255  # a light corner, at the top left before the turn
    path = tmp_path / "video.mp4"
    path.write_bytes(turned(video_file("mp4", [frame] * 4), degrees))
    sampled = load_video(str(path), TINY_VIDEOS)
    image = Image.fromarray(frame).rotate(-degrees, expand=True)
    height, width = sampled.frames.shape[1:3]
    expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    assert np.abs(sampled.frames[0].astype(float) - expected).mean() < 8


# ------------------------------------------------------------------------------ animated images


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_of_animated_images(tmp_path, kind):
    first, *rest = (Image.fromarray(pixels) for pixels in greys(range(0, 110, 10)))
    path = tmp_path / "video.dat"
    options = {"lossless": True} if kind == "WEBP" else {}
    path.write_bytes(
        encode(first, kind, save_all=True, append_images=rest, duration=250, **options)
    )
    sampled = load_video(str(path), TINY_VIDEOS)
    assert levels(sampled) == [0, 3, 7, 10]
    assert sampled.fps == 4 / 11 * 4


def test_animated_images_without_durations_and_stills(tmp_path):
    path = tmp_path / "video.gif"
    path.write_bytes(animation("GIF", 12, duration=0))
    assert load_video(str(path), VideoConfig(fps=5.0, pixels=TINY)).fps == 6 / 12 * 10
    path.write_bytes(encode(random_image(0), "PNG"))
    sampled = load_video(str(path), TINY_VIDEOS)
    assert sampled.frames.shape[0] == 1
    assert video_patches(sampled, TINY_VIDEOS).grid[0] == 1


# -------------------------------------------------------------------------------------- patches


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 7])
def test_patches_equal_transformers(num_frames):
    frames = np.stack(noise(num_frames, (84, 56)))
    config = VideoConfig(pixels=PixelConfig(min_pixels=84 * 56, max_pixels=84 * 56))
    patches = video_patches(SampledVideo(frames, 2.0, ()), config)
    # The frames of transformers' image processor, then the view of Qwen2VLVideoProcessor.patchify.
    planes = normalised_planes(frames)
    if num_frames % 2:
        planes = torch.cat([planes, planes[-1:]])
    rows, columns = 56 // 14, 84 // 14
    expected = planes.view(-1, 2, 3, rows // 2, 2, 14, columns // 2, 2, 14)
    expected = expected.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * 2 * 14 * 14)
    assert patches.grid == (-(-num_frames // 2), rows, columns)
    np.testing.assert_array_equal(pixels_of(patches), expected.numpy())


def normalised_planes(frames: np.ndarray) -> torch.Tensor:
    """Frames (T, 3, Y, X) as transformers normalises them."""
    processor = Qwen2VLImageProcessorPil()
    rescaled = (processor.rescale(frame.transpose(2, 0, 1), 1 / 255) for frame in frames)
    mean, std = processor.image_mean, processor.image_std
    return torch.from_numpy(np.stack([processor.normalize(frame, mean, std) for frame in rescaled]))


def test_a_still_video_equals_the_image(tmp_path):
    image = random_image(1, (80, 60))
    path = tmp_path / "video.png"
    path.write_bytes(encode(image, "PNG"))
    sampled = video_patches(load_video(str(path), TINY_VIDEOS), TINY_VIDEOS)
    np.testing.assert_array_equal(sampled.levels, image_patches(image, TINY).levels)


# ------------------------------------------------------------------------------------ bad files


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_bad_files_are_named(tmp_path, name):
    make, message = BAD_VIDEOS[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(MediaError, match=message) as error:
        load_video(str(path), VideoConfig(fps=100.0, pixels=TINY))  # reads every frame
    assert str(error.value).startswith(f"{path}: ")
    assert ";" in str(error.value) or "copy" in str(error.value)  # and what to do


def test_playlists_open_nothing(tmp_path):
    target = tmp_path / "video.ts"
    target.write_bytes(video_file("mpegts", noise(5)))
    playlist = tmp_path / "video.mp4"
    playlist.write_text(PLAYLIST.format(target=target))
    assert len(load_video(str(target), TINY_VIDEOS).frames) == 4
    with pytest.raises(MediaError, match="cannot be decoded"):
        load_video(str(playlist), TINY_VIDEOS)
    with pytest.raises(MediaError, match="no such file"):
        load_video(str(tmp_path / "absent.mp4"), TINY_VIDEOS)


def test_limits(tmp_path):
    for content in (video_file("mp4", noise(9)), animation("GIF", 9)):
        path = tmp_path / "video"
        path.write_bytes(content)
        with pytest.raises(
            MediaError, match=r"video: 9 frames or more, and max_file_frames=8; cut it"
        ):
            load_video(str(path), TINY_VIDEOS, MediaLimits(max_file_frames=8))
        with pytest.raises(MediaError, match=r"video: 64 x 48 pixels are more than max_pix"):
            load_video(str(path), TINY_VIDEOS, MediaLimits(max_pixels=3000))
        assert len(load_video(str(path), TINY_VIDEOS, MediaLimits(3072, 9)).frames) == 4


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "GIF", "WEBP", "PNG"])
def test_any_damage_ends_in_a_video_or_the_error(tmp_path, container):
    rng = random.Random(8)
    intact = animation(container) if container.isupper() else video_file(container, noise(12))
    path = tmp_path / "video"
    files = [cut(intact, rng.random()) for _ in range(8)]
    files += [scratched(intact, num_bytes) for num_bytes in range(1, 9)]
    for content in files:
        path.write_bytes(content)
        try:
            assert len(load_video(str(path), TINY_VIDEOS).frames) <= 4
        except MediaError:
            continue
