"""Audio and videos with audio: order and positions of tokens, as in transformers."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from lco_jax.data.encode.audio_video import take_turns
from lco_jax.data.encode.positions import AudioVideo, Grid, mrope_ids, video_turns
from lco_jax.data.media.mel import num_audio_tokens
from lco_jax.models.config import from_hf
from tests.data.test_positions import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    CONFIG,
    END,
    IMAGE,
    START,
    TEXT,
    VIDEO,
    omni,  # noqa: F401
)


def sound_video(frames, side, fps, audio_frames):
    grid = Grid(frames, side, side + 2, seconds_per_frame=2 / fps)
    return AudioVideo(grid, num_audio_tokens(audio_frames), 2.0), audio_frames


SOUND_VIDEOS = {
    "as recorded": sound_video(5, 4, 2.0, 401),
    "audio ends first": sound_video(6, 4, 2.0, 51),
    "video ends first": sound_video(1, 4, 2.0, 401),
    "many frames a turn": sound_video(9, 4, 8.0, 300),
    "less than a frame a turn": sound_video(7, 2, 0.3, 401),
    "one frame a turn": sound_video(4, 2, 1.0, 300),
    "uneven rate": sound_video(11, 4, 2.997, 401),
    "larger than long": sound_video(1, 40, 2.0, 51),
    "a single token": sound_video(1, 2, 2.0, 3),
    "long": sound_video(40, 2, 2.5, 3001),
}


def processor_order(video):
    """The tokens of a video and its audio as the processor writes them."""
    grid = video.grid
    processor = object.__new__(Qwen2_5OmniProcessor)
    times = np.repeat(np.arange(grid.frames), grid.rows * grid.columns // 4)
    cuts = [
        processor.get_chunked_index(times * grid.seconds_per_frame * 25, 50),
        processor.get_chunked_index(np.arange(video.num_audio_tokens), 50),
    ]
    order = []
    for video_turn, audio_turn in itertools.zip_longest(*cuts, fillvalue=(0, 0)):
        order += [True] * (video_turn[1] - video_turn[0])
        order += [False] * (audio_turn[1] - audio_turn[0])
    return order


def rope_index(model, parts):
    """The positions that transformers gives to text, audio, grids and videos with audio."""
    tokens, audio, images, videos, seconds = [], [], [], [], []
    for part in parts:
        if isinstance(part, int):
            tokens += [TEXT] * part
        elif isinstance(part, str):
            audio.append(int(part))
            tokens += [AUDIO_START, *[AUDIO] * num_audio_tokens(int(part)), AUDIO_END]
        elif isinstance(part, Grid):
            kind = VIDEO if part.frames > 1 else IMAGE
            tokens += [START, *[kind] * (part.frames * part.rows * part.columns // 4), END]
            (videos if part.frames > 1 else images).append(part[:3])
            seconds += [part.seconds_per_frame] * (part.frames > 1)
        else:
            video, audio_frames = part
            order = [VIDEO if is_video else AUDIO for is_video in processor_order(video)]
            tokens += [START, AUDIO_START, *order, AUDIO_END, END]
            audio.append(audio_frames)
            videos.append(video.grid[:3])
            seconds.append(video.grid.seconds_per_frame)
    tokens = torch.tensor([tokens])
    positions, _ = model.get_rope_index(
        tokens,
        torch.tensor(images).reshape(-1, 3) if images else None,
        torch.tensor(videos).reshape(-1, 3) if videos else None,
        attention_mask=torch.ones_like(tokens),
        use_audio_in_video=any(isinstance(part, tuple) and len(part) == 2 for part in parts),
        audio_seqlens=torch.tensor(audio),
        second_per_grids=torch.tensor(seconds),
    )
    return positions[:, 0].numpy().T


def our_ids(parts, config):
    ours = []
    for part in parts:
        if isinstance(part, str):
            ours.append(num_audio_tokens(int(part)) + 2)
        elif isinstance(part, Grid):
            ours += [1, part, 1]
        else:
            ours.append(part if isinstance(part, int) else part[0])
    return mrope_ids(ours, config)


@pytest.fixture(scope="module")
def config(omni: Qwen2_5OmniThinkerForConditionalGeneration):  # noqa: F811
    return from_hf(omni.config.to_dict())


MIXTURES = {
    "several recordings": [3, "51", 1, "401", "3", 4],
    "recordings in a row, nothing else": ["300", "51", "3001"],
    "audio, image and text": [2, "300", Grid(1, 6, 4), 5, "51", 3],
    "image first": [Grid(1, 8, 4), "401", 2, Grid(1, 2, 2), 1],
    "audio and a silent video": [4, Grid(3, 4, 6, 1.0), "300", 2],
    "all": [1, Grid(1, 4, 4), "51", Grid(4, 4, 6, 0.5), 2, "3", Grid(2, 2, 2, 1 / 3), 3],
}


@pytest.mark.parametrize("case", MIXTURES)
def test_audio(omni, config, case):  # noqa: F811
    expected = rope_index(omni, MIXTURES[case])
    np.testing.assert_array_equal(our_ids(MIXTURES[case], config.vision), expected)


@pytest.mark.parametrize("case", SOUND_VIDEOS)
def test_video_with_audio(omni, config, case):  # noqa: F811
    video, _ = SOUND_VIDEOS[case]
    assert config.audio.seconds_per_turn == video.seconds_per_turn
    assert video_turns(video, config.vision).tolist() == processor_order(video)
    for parts in ([3, SOUND_VIDEOS[case], 4], [SOUND_VIDEOS[case], 2]):
        expected = rope_index(omni, parts)
        np.testing.assert_array_equal(our_ids(parts, config.vision), expected)


def test_videos_with_audio_among_other_media(omni, config):  # noqa: F811
    first, second = SOUND_VIDEOS["as recorded"], SOUND_VIDEOS["audio ends first"]
    parts = [2, first, Grid(1, 4, 6), 1, "300", 3, second, 1, "51", 2]
    np.testing.assert_array_equal(our_ids(parts, config.vision), rope_index(omni, parts))


def test_rate_at_which_transformers_disagrees_with_itself(omni, config):  # noqa: F811
    """Its processor gives a token to the video that its model counts as audio; we do not."""
    video, audio_frames = sound_video(60, 2, 7.4, 1200)
    turns = video_turns(video, config.vision)
    assert turns.tolist() != processor_order(video)
    ids = mrope_ids([video], config.vision)
    np.testing.assert_array_equal(ids, rope_index(omni, [(video, audio_frames)]))
    start = ids[2, 0]
    audio = ids[2:-2][~turns]
    assert (audio == start + np.arange(video.num_audio_tokens)[:, None]).all()


def test_turns():
    """Five seconds at two frames a second, 12 tokens a turn, and 84 tokens of audio."""
    video = AudioVideo(Grid(5, 4, 6, 1.0), 84, 2.0)
    vision = dataclasses.replace(CONFIG, ids_per_second=25.0)
    is_video = video_turns(video, vision)
    changes = [(kind, len(list(run))) for kind, run in itertools.groupby(is_video.tolist())]
    assert changes == [(True, 12), (False, 50), (True, 12), (False, 34), (True, 6)]
    ids = mrope_ids([1, video, 1], vision)
    assert ids[:3].tolist() == [[0] * 3, [1] * 3, [1] * 3]
    assert ids[3].tolist() == [2, 2, 2] and ids[3 + 12 + 50].tolist() == [52, 2, 2]
    assert ids[-3:].tolist() == [[103] * 3, [103] * 3, [104] * 3]


def test_no_token_ends_two_turns():
    times = np.repeat([[0], [500], [510]], 3, axis=1)
    turns = take_turns(times, 3, 1)
    assert turns.is_video.tolist() == [True, False, True, False, True, False]
    assert turns.ids[:, 0].tolist() == [0, 0, 500, 1, 510, 2]
    assert turns.length == 3  # behind the last turn, not behind the largest id
