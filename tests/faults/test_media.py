"""Media that are damaged, endless, huge or no files: an error with their name, in little time."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import MediaConfig, MediaLimits
from lco_jax.config.io import check_resumable, from_json, to_json
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig, PixelConfig, VideoConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import load_image
from lco_jax.data.media.video import load_video
from lco_jax.data.records import Item
from lco_jax.data.sources.items import open_items
from lco_jax.models.config import read_config
from tests import runs, tiny
from tests.data.audio_files import plain, tones, track, with_size
from tests.data.media_files import (
    animation,
    cut,
    noise,
    shown_by,
    video_file,
)
from tests.faults import media_cases, runner

VIDEOS = VideoConfig(pixels=PixelConfig(56 * 56, 112 * 112))
ROTATIONS = {
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}
"""Where a matrix takes the axes, and what that does to an image."""


# -------------------------------------------------------------------------------- false alarms


@pytest.mark.parametrize("axes", ROTATIONS)
def test_videos_are_shown_as_players_do(axes):
    size = (112, 112)
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[:40, :70] = 255  # no two of the eight look alike
    picture[60:, :20] = 128
    content = shown_by(video_file("mp4", [picture] * 4, size=size), axes)
    found = load_video(content, VIDEOS).frames[0].astype(int)
    assert np.abs(found - ROTATIONS[axes](picture)).mean() < 8


def test_a_wav_file_of_unknown_length_is_read_to_its_end():
    whole = plain(tones(1.5))
    expected = load_audio(whole, MelConfig())
    for size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        np.testing.assert_allclose(load_audio(with_size(whole, size), MelConfig()), expected)
    with pytest.raises(MediaError, match="too short"):
        load_audio(with_size(whole[:44], 0), MelConfig())


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", None), ("OGG", "OPUS"), ("FLAC", None)])
def test_joined_recordings_are_read_as_ffmpeg_does(kind, subtype):
    first, second = (plain(tones(2, seed=seed), kind, subtype) for seed in range(2))
    found = load_audio(first + second, MelConfig())
    assert 3.5 < len(found) / 16_000 < 4.1
    for one in (first, second):
        assert len(load_audio(one, MelConfig())) == 32_000
    if kind == "OGG":
        with pytest.raises(MediaError, match="so it is truncated"):
            load_audio(first + cut(second, 0.7), MelConfig())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_an_avi_file_that_lacks_its_end_is_truncated(share):
    content = video_file("avi", noise(60), codec="mpeg4")
    assert len(load_video(content, VIDEOS).frames) == 12
    with pytest.raises(MediaError, match=r"so it is truncated"):
        load_video(cut(content, share), VIDEOS)


# ------------------------------------------------------------------------------------- budgets


def test_budgets_say_what_was_exceeded_with_both_numbers(tmp_path):
    video, moving = video_file("mp4", noise(9)), animation("WEBP", 9)
    for content in (video, moving):
        few = MediaLimits(max_decoded_pixels=9 * 64 * 48 - 1)
        with pytest.raises(
            MediaError, match=r"9 frames of 64 x 48 are 27648 pixels, more than max_deco.*=27647;"
        ):
            load_video(content, VIDEOS, few)
        assert len(load_video(content, VIDEOS, MediaLimits(max_decoded_pixels=27_648)).frames) > 1
    with pytest.raises(MediaError, match=r"first 13\.1 seconds .*max_decoded_seconds=12;.* limit"):
        load_audio(
            plain(tones(1)),
            MelConfig(max_seconds=3),
            MediaLimits(max_decoded_seconds=12),
            start_s=10,
        )
    for load, content in (
        (load_video, video),
        (load_video, moving),
        (lambda *x: load_audio(x[0], MelConfig(), x[2]), plain(tones(1))),
        (lambda *x: load_audio(x[0], MelConfig(), x[2]), track("mp4", "aac", tones(1))),
    ):
        with pytest.raises(
            MediaError, match=r"has taken 0\.\d s, more than max_decoding_seconds=1e-09; .*raise"
        ):
            load(content, VIDEOS, MediaLimits(max_decoding_seconds=1e-9))


def test_absurd_numbers_in_headers_are_refused():
    content = plain(tones(1))
    absurd = content[:24] + (2**31 - 1).to_bytes(4, "little") + content[28:]
    with pytest.raises(MediaError, match=r"2147483647 samples a second, and at most 768000"):
        load_audio(absurd, MelConfig())


def test_limits_are_settings_that_a_resume_may_change(tmp_path):
    folder = tiny.write(tmp_path / "model", "qwen2_5_omni_thinker").folder
    image = tmp_path / "a.png"
    Image.new("RGB", (60, 60)).save(image)
    small = MediaConfig(limits=MediaLimits(max_pixels=3599))
    processors = [Processor(folder, read_config(folder), media=m) for m in (small, None)]
    with pytest.raises(MediaError, match=r"60 x 60 pixels are more than max_pixels=3599; .*raise"):
        processors[0].encode([Item(images=(str(image),))])
    assert processors[1].encode([Item(images=(str(image),))])
    assert processors[0].describe() == processors[1].describe(), "vectors do not depend on them"
    assert from_json(to_json(small)) == small
    before = runs.make_config(folder, runs.write_triplets(tmp_path / "a.jsonl"))
    data = before.data.__class__(before.data.sources, batch_size=16, media=small)
    check_resumable(before, before.__class__(**{**vars(before), "data": data}))
    with pytest.raises(ValueError, match="limits must be positive"):
        MediaLimits(max_decoding_seconds=0)


# ------------------------------------------------------------------------------- regular files


@pytest.fixture(params=["pipe", "socket", "device", "folder"])
def no_file(request, tmp_path):
    """A path with the ending of any kind of file, and what is there."""

    def make(suffix: str):
        path = tmp_path / f"x{suffix}"
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        return str(path), f"x{suffix}: is a .*{request.param}.*only regular files are read"

    return make


@pytest.mark.parametrize("load", [load_image, load_video, load_audio])
def test_only_regular_files_are_media(no_file, load):
    path, message = no_file(".png")
    config = {load_video: (VIDEOS,), load_audio: (MelConfig(),)}.get(load, ())
    with pytest.raises(MediaError, match=message):
        load(path, *config)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz"])
def test_only_regular_files_hold_records(no_file, suffix):
    path, message = no_file(suffix)
    if os.path.isdir(path):
        return
    with pytest.raises(ValueError, match=message):
        open_items(path)


def test_texts_of_a_folder_are_regular_files(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    os.mkfifo(tmp_path / "b.txt")
    fine, error = open_items(str(tmp_path))
    assert fine.text == "fine"
    assert "b.txt: " in str(error) and "is a named pipe (FIFO)" in str(error)


# ----------------------------------------------------------------------------------- mutations


def _bad(folder, count: int, names=tuple(media_cases.INTACT)) -> tuple[dict, list]:
    outcomes = []
    for name in names:
        kind, make = media_cases.INTACT[name]
        content = make()
        path = folder / name
        path.write_bytes(content)
        intact = media_cases.read(path, kind)
        for case in media_cases.cases(name, content, count):
            path.write_bytes(case.content)
            arguments = (path, kind, intact, case.is_exact)
            outcome = runner.run(
                media_cases.compare,
                *arguments,
                names=[name],
                expected=media_cases.is_right,
                limit_s=60,
            )
            outcomes.append(((case.name, case.damage), outcome))
    return runner.count(outcome for _, outcome in outcomes), runner.bad(outcomes)


def test_damaged_media_in_short(tmp_path):
    counts, bad = _bad(tmp_path, 2, ("a.png", "a.wav", "a.ogg", "b.mp4", "a.avi", "b.gif"))
    assert not bad, bad
    assert sum(counts.values()) == 12


@pytest.mark.slow
def test_damaged_media(tmp_path):
    counts, bad = _bad(tmp_path, 12)
    print(counts)
    assert not bad, bad
    assert sum(counts.values()) >= 300
