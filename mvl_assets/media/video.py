"""Frames of a video file, as JPEG pictures: the form in which videos enter the lake.

Belongs here: everything that opens a video. What becomes of the frames is the caller's business.

Sampling follows LLaVA-Video as the paper's released training code does it (arXiv 2412.05237 §4): one frame a second,
and when those are more than `most`, `most` of them evenly spaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mvl_assets.media.image import PictureError, check_size, encode

SEEK_AFTER = 4.0
"""Seconds: over longer gaps the nearest key frame before the target is sought instead of decoding up to it."""

GRACE = 1.0
"""Seconds by which the last frame may come before the announced end; a file that ends earlier is truncated."""

_CLOCK = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)")

KINDS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,rm,ogg,ivf,mxf,wtv,dv,gif,apng,wav,mp3"
"""What FFmpeg may take a file for. Left to itself it also follows playlists (`hls`, `concat`), which name other files,
and draws plain text as a film."""


class VideoError(Exception):
    """A file whose frames cannot be sampled.

    `error` is one of `not_a_video`, `no_video_stream`, `no_frames`, `too_many_pixels`, `truncated_video`,
    `broken_video`.
    """

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(f"{error}: {message}")


def sample_frames(file: Path | BinaryIO, fps: float = 1.0, most: int = 32) -> Iterator[tuple[float, bytes]]:
    """(seconds from the start, JPEG bytes) of what is on screen at evenly spaced times, in order.

    `file` is a path or a seekable stream. Holds two decoded frames at a time. The same file gives the same bytes.
    Raises `VideoError`, possibly after some frames were yielded: take the frames of a video all or not at all.
    `OSError` passes through.
    """
    try:
        with _opened(file) as container:
            if not container.streams.video:
                raise VideoError("no_video_stream", "the file has no pictures")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError("broken_video", "its pictures are packed in a way that is not known")
            _check(stream.codec_context.width, stream.codec_context.height)
            seconds = _duration(container, stream)
            if seconds is None:
                raise VideoError("no_frames", "the file holds no frame")
            for target, frame in _frames_at(container, stream, sample_times(seconds, fps, most)):
                yield target, _jpeg(frame)
    except av.error.InvalidDataError as error:
        # An mp4's index usually comes last: without it nothing is readable, though the file begins like an mp4.
        raise VideoError("truncated_video" if _is_mp4(file) else "not_a_video", str(error.strerror)) from error
    except OverflowError as error:
        raise VideoError("broken_video", f"a time in it is out of range: {error}") from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and isinstance(file, Path) and not file.is_file():
            raise
        raise VideoError("broken_video", str(error.strerror)) from error


def _opened(file: Path | BinaryIO) -> InputContainer:
    name = str(file) if isinstance(file, Path) else file
    try:
        return av.open(name, "r", options={"format_whitelist": KINDS}, metadata_errors="ignore")
    except av.error.ArgumentError as error:
        if _is_mp4(file):
            raise VideoError("broken_video", str(error.strerror)) from error
        raise VideoError("not_a_video", "the file is of no kind of film that is read") from error


def sample_times(seconds: float, fps: float, most: int) -> list[float]:
    """The times to look at in a video of this length: 0, 1/fps, 2/fps, ...; `most` of them when there are more."""
    count = max(1, int(np.ceil(seconds * fps - 1e-6)))
    picks = np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)
    return [float(p) / fps for p in picks]


@dataclass(slots=True)
class _Position:
    """Where the decoder stands. `may_seek` turns false when a seek did not help, so nothing is decoded twice over."""

    seconds: float = -1.0
    may_seek: bool = True


def _frames_at(
    container: InputContainer, stream: VideoStream, targets: list[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """For every target the last frame that starts at or before it."""
    position = _Position()
    start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    shown: av.VideoFrame | None = None
    upcoming: av.VideoFrame | None = None
    frames = _decode(container, stream)
    for target in targets:
        if position.may_seek and target - position.seconds > SEEK_AFTER and shown is not None:
            before = position.seconds
            assert stream.time_base is not None
            container.seek(int((target + start) / stream.time_base), stream=stream, backward=True)
            frames = _decode(container, stream)
            shown, upcoming = next(frames, None), None
            if shown is None:
                raise VideoError("truncated_video", f"nothing can be read at {target:.1f} s")
            position.seconds = _seconds(shown, start)
            position.may_seek = position.seconds > before
        while True:
            if upcoming is None:
                upcoming = next(frames, None)
            if upcoming is None or (shown is not None and _seconds(upcoming, start) > target + 1e-6):
                break
            shown, upcoming = upcoming, None
            position.seconds = _seconds(shown, start)
        if shown is None:
            raise VideoError("no_frames", "no frame could be decoded")
        if upcoming is None and target - position.seconds - _lasts(shown) > GRACE:
            raise VideoError("truncated_video", f"frames end at {position.seconds:.1f} s, {target:.1f} s is missing")
        yield target, shown


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        _check(frame.width, frame.height)
        yield frame


def _seconds(frame: av.VideoFrame, start: float) -> float:
    if frame.time is None:
        raise VideoError("broken_video", "a frame without a time stamp")
    return frame.time - start


def _lasts(frame: av.VideoFrame) -> float:
    """Seconds the frame stays on screen: the last one of a slide show is there for long."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds, from the header or else from the packets' time stamps; None when there is not one packet. The whole
    file's, which may be its sound's, only where the pictures' own is not told (Matroska tells it in a tag)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if told := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):
        return int(told[1]) * 3600 + int(told[2]) * 60 + float(told[3])
    if container.duration:
        return container.duration / 1_000_000
    last: float | None = None
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0) - (stream.start_time or 0)) * packet.time_base)
            last = end if last is None else max(last, end)
    container.seek(0)
    return last


def _is_mp4(file: Path | BinaryIO) -> bool:
    """Whether the file begins as one."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return stream.read(8)[4:] == b"ftyp"
    file.seek(0)
    return file.read(8)[4:] == b"ftyp"


def _check(width: int, height: int) -> None:
    try:
        check_size(width, height)
    except PictureError as error:
        kind = "no_frames" if error.error == "zero_size" else error.error
        raise VideoError(kind, error.message) from error


def _jpeg(frame: av.VideoFrame) -> bytes:
    """Upright: a phone's display matrix is applied (PyAV gives the counterclockwise angle)."""
    image = frame.to_image()
    return encode(image.rotate(frame.rotation, expand=True) if frame.rotation else image)
