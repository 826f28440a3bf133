"""Frames of a video file, as JPEG pictures: the form in which videos enter the lake.

Belongs here: everything that opens a video. What becomes of the frames is the caller's business.

Sampling follows LLaVA-Video as the paper's released training code does it (arXiv 2412.05237 §4): one frame a second,
and when those are more than `max_frames`, `max_frames` of them evenly spaced.
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

from mvl_assets.media.image import ImageError, check_image_size, encode_image

SEEK_THRESHOLD_S = 4.0
"""Seconds: over longer gaps the nearest key frame before the target is sought instead of decoding up to it."""

END_TOLERANCE_S = 1.0
"""Seconds by which the last frame may come before the announced end; a file that ends earlier is truncated."""

_DURATION_TAG = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)")

ALLOWED_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,rm,ogg,ivf,mxf,wtv,dv,gif,apng,wav,mp3"
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


def sample_frames(file: Path | BinaryIO, fps: float = 1.0, max_frames: int = 32) -> Iterator[tuple[float, bytes]]:
    """(seconds from the start, JPEG bytes) of what is on screen at evenly spaced times, in order.

    `file` is a path or a seekable stream. Holds two decoded frames at a time. The same file gives the same bytes.
    Raises `VideoError`, possibly after some frames were yielded: take the frames of a video all or not at all.
    `OSError` passes through.
    """
    try:
        with _open_container(file) as container:
            if not container.streams.video:
                raise VideoError("no_video_stream", "the file has no pictures")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError("broken_video", "its pictures are packed in a way that is not known")
            _check_frame_size(stream.codec_context.width, stream.codec_context.height)
            duration_s = _read_duration(container, stream)
            if duration_s is None:
                raise VideoError("no_frames", "the file holds no frame")
            for target_s, frame in _iter_frames_at(
                container, stream, compute_sample_times(duration_s, fps, max_frames)
            ):
                yield target_s, _encode_jpeg(frame)
    except av.error.InvalidDataError as error:
        # An mp4's index usually comes last: without it nothing is readable, though the file begins like an mp4.
        raise VideoError("truncated_video" if _is_mp4(file) else "not_a_video", str(error.strerror)) from error
    except OverflowError as error:
        raise VideoError("broken_video", f"a time in it is out of range: {error}") from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and isinstance(file, Path) and not file.is_file():
            raise
        raise VideoError("broken_video", str(error.strerror)) from error


def _open_container(file: Path | BinaryIO) -> InputContainer:
    source = str(file) if isinstance(file, Path) else file
    try:
        return av.open(source, "r", options={"format_whitelist": ALLOWED_DEMUXERS}, metadata_errors="ignore")
    except av.error.ArgumentError as error:
        if _is_mp4(file):
            raise VideoError("broken_video", str(error.strerror)) from error
        raise VideoError("not_a_video", "the file is of no kind of film that is read") from error


def compute_sample_times(duration_s: float, fps: float, max_frames: int) -> list[float]:
    """The times to look at in a video of this length: 0, 1/fps, 2/fps, ...; `max_frames` of them when there are more."""
    n_frames = max(1, int(np.ceil(duration_s * fps - 1e-6)))
    frame_indices = (
        np.arange(n_frames) if n_frames <= max_frames else np.linspace(0, n_frames - 1, max_frames).round().astype(int)
    )
    return [float(p) / fps for p in frame_indices]


@dataclass(slots=True)
class _DecoderPosition:
    """Where the decoder stands. `may_seek` turns false when a seek did not help, so nothing is decoded twice over."""

    time_s: float = -1.0
    may_seek: bool = True


def _iter_frames_at(
    container: InputContainer, stream: VideoStream, targets_s: list[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """For every target the last frame that starts at or before it."""
    position = _DecoderPosition()
    start_s = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    current_frame: av.VideoFrame | None = None
    next_frame: av.VideoFrame | None = None
    frames = _iter_decoded_frames(container, stream)
    for target_s in targets_s:
        if position.may_seek and target_s - position.time_s > SEEK_THRESHOLD_S and current_frame is not None:
            previous_s = position.time_s
            assert stream.time_base is not None
            container.seek(int((target_s + start_s) / stream.time_base), stream=stream, backward=True)
            frames = _iter_decoded_frames(container, stream)
            current_frame, next_frame = next(frames, None), None
            if current_frame is None:
                raise VideoError("truncated_video", f"nothing can be read at {target_s:.1f} s")
            position.time_s = _get_frame_time(current_frame, start_s)
            position.may_seek = position.time_s > previous_s
        while True:
            if next_frame is None:
                next_frame = next(frames, None)
            if next_frame is None or (
                current_frame is not None and _get_frame_time(next_frame, start_s) > target_s + 1e-6
            ):
                break
            current_frame, next_frame = next_frame, None
            position.time_s = _get_frame_time(current_frame, start_s)
        if current_frame is None:
            raise VideoError("no_frames", "no frame could be decoded")
        if next_frame is None and target_s - position.time_s - _get_frame_duration(current_frame) > END_TOLERANCE_S:
            raise VideoError("truncated_video", f"frames end at {position.time_s:.1f} s, {target_s:.1f} s is missing")
        yield target_s, current_frame


def _iter_decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        _check_frame_size(frame.width, frame.height)
        yield frame


def _get_frame_time(frame: av.VideoFrame, start_s: float) -> float:
    if frame.time is None:
        raise VideoError("broken_video", "a frame without a time stamp")
    return frame.time - start_s


def _get_frame_duration(frame: av.VideoFrame) -> float:
    """Seconds the frame stays on screen: the last one of a slide show is there for long."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _read_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds, from the header or else from the packets' time stamps; None when there is not one packet. The whole
    file's, which may be its sound's, only where the pictures' own is not told (Matroska tells it in a tag)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if match := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    if container.duration:
        return container.duration / 1_000_000
    latest_end: float | None = None
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0) - (stream.start_time or 0)) * packet.time_base)
            latest_end = end if latest_end is None else max(latest_end, end)
    container.seek(0)
    return latest_end


def _is_mp4(file: Path | BinaryIO) -> bool:
    """Whether the file begins as one."""
    if isinstance(file, Path):
        with file.open("rb") as handle:
            return handle.read(8)[4:] == b"ftyp"
    file.seek(0)
    return file.read(8)[4:] == b"ftyp"


def _check_frame_size(width: int, height: int) -> None:
    try:
        check_image_size(width, height)
    except ImageError as error:
        error_class = "no_frames" if error.error == "zero_size" else error.error
        raise VideoError(error_class, error.message) from error


def _encode_jpeg(frame: av.VideoFrame) -> bytes:
    """Upright: a phone's display matrix is applied (PyAV gives the counterclockwise angle)."""
    image = frame.to_image()
    return encode_image(image.rotate(frame.rotation, expand=True) if frame.rotation else image)
