"""Frames of a video: the right ones, upright, the same every time; and a clear reason when there are none."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mvl_assets.media.video import VideoError, compute_sample_times, sample_frames, sample_n_frames

RATE = 10


def make_video(
    path: Path, seconds: float, *, rotation: float | None = None, gop: int = 10, size: tuple[int, int] = (64, 48)
) -> Path:
    """A film whose brightness tells the second: second n is grey 8n + 8. The left half stays black."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"g": str(gop)})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(round(seconds * RATE)):
            pixels = np.full((size[1], size[0], 3), 8 * (index // RATE) + 8, np.uint8)
            pixels[:, : size[0] // 2] = 0
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def second_shown(jpeg: bytes) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), dtype=float)
    return round((pixels[:, -8:].mean() - 8) / 8)


def test_sampled_frame_is_the_one_on_screen_at_its_second(tmp_path: Path) -> None:
    frames = list(sample_frames(make_video(tmp_path / "a.mp4", 5)))
    assert [t for t, _ in frames] == [0, 1, 2, 3, 4]
    assert [second_shown(jpeg) for _, jpeg in frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("gop", [10, 300], ids=["key frame each second", "one key frame"])
def test_long_video_is_sampled_evenly_by_seeking(tmp_path: Path, gop: int) -> None:
    frames = list(sample_frames(make_video(tmp_path / "long.mp4", 29, gop=gop), max_frames=5))
    assert [t for t, _ in frames] == [0, 7, 14, 21, 28]
    assert [second_shown(jpeg) for _, jpeg in frames] == [0, 7, 14, 21, 28]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
@pytest.mark.parametrize(("seconds", "n_frames"), [(1, 32), (5, 32), (29, 32), (29, 5)])
def test_a_number_of_frames_is_spread_over_all_frames_whatever_the_length(
    tmp_path: Path, name: str, seconds: int, n_frames: int
) -> None:
    shown = [second_shown(jpeg) for jpeg in sample_n_frames(make_video(tmp_path / name, seconds), n_frames)]
    # As the paper's copy of lmms-eval chooses among decoded frames.
    chosen = np.linspace(0, seconds * RATE - 1, n_frames, dtype=int)
    assert shown == [index // RATE for index in chosen]


def test_same_video_gives_the_same_bytes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    assert list(sample_frames(path)) == list(sample_frames(path))


def test_video_without_a_duration_in_its_header_is_measured_by_packets(tmp_path: Path) -> None:
    mp4, live = make_video(tmp_path / "a.mp4", 4), tmp_path / "live.mkv"
    with av.open(str(mp4)) as source, av.open(str(live), "w", options={"live": "1"}) as sink:
        copy = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                sink.mux(packet)
    with av.open(str(live)) as container:
        assert container.duration is None
    assert [second_shown(jpeg) for _, jpeg in sample_frames(live)] == [0, 1, 2, 3]


def test_rotated_phone_video_is_sampled_upright(tmp_path: Path) -> None:
    (_, jpeg), *_ = sample_frames(make_video(tmp_path / "turned.mp4", 1, rotation=90))
    turned = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), dtype=float)
    assert turned.shape == (64, 48)
    # 90 degrees counterclockwise bring the left (black) half to the bottom.
    assert turned[:24].mean() > turned[-24:].mean()


@pytest.mark.parametrize(
    ("seconds", "fps", "most", "times"),
    [
        (3.0, 1, 32, [0, 1, 2]),
        (3.2, 1, 32, [0, 1, 2, 3]),
        (0.1, 1, 32, [0]),
        (1.0, 2, 32, [0, 0.5]),
        (100, 1, 3, [0, 50, 99]),
    ],
)
def test_sample_times_are_even_and_inside_the_video(seconds: float, fps: float, most: int, times: list[float]) -> None:
    assert compute_sample_times(seconds, fps, most) == times


def test_file_that_is_not_a_video_has_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"not a film at all" * 100)
    with pytest.raises(VideoError) as caught:
        list(sample_frames(path))
    assert caught.value.code == "not_a_video"


def test_cut_off_video_is_truncated_not_shorter(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        whole = make_video(tmp_path / name, 12)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(VideoError) as caught:
            list(sample_frames(whole))
        assert caught.value.code == "truncated_video"


def test_sound_file_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(VideoError) as caught:
        list(sample_frames(path))
    assert caught.value.code == "no_video_stream"


def test_missing_video_file_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        list(sample_frames(tmp_path / "gone.mp4"))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_slide_show_with_a_long_last_frame_is_complete(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"slides.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 5))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in (50, 100, 150):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    assert [t for t, _ in sample_frames(path)] == list(range(15))
