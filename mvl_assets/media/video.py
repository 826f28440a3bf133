"""Frames of a video file, as JPEG images: the form in which videos enter the lake.

Sampling follows LLaVA-Video as the paper's released training code does it (arXiv 2412.05237 §4): one frame a second,
and `max_frames` of them evenly spaced if there are more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from mvl_assets.common.pick_evenly import pick_evenly, pick_exactly
from mvl_assets.common.rejects import RejectError
from mvl_assets.media.image import ImageError, check_image_size, encode_image

SEEK_THRESHOLD_S = 4.0
"""Over a longer gap than this, in seconds, the decoder seeks the key frame before the target instead of decoding on."""

END_TOLERANCE_S = 1.0
"""Seconds by which the last frame may precede the announced end; a file that ends earlier is truncated."""

_DURATION_TAG = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)")

ALLOWED_DEMUXERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,rm,ogg,ivf,mxf,wtv,dv,gif,apng,wav,mp3"
"""Formats that FFmpeg may detect. By default it also follows playlists (`hls`, `concat`), which name other files, and
renders plain text as a video."""


class VideoError(RejectError):
    """A file whose frames cannot be sampled.

    `code` is one of `not_a_video`, `no_video_stream`, `no_frames`, `too_many_pixels`, `truncated_video`,
    `broken_video`.
    """


def sample_frames(file: Path | BinaryIO, fps: float = 1.0, max_frames: int = 32) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds from the start, JPEG bytes) of the frames on screen at evenly spaced times, in order.

    Holds two decoded frames at a time. The same file gives the same bytes.

    Args:
        file: A path or a seekable stream.
        fps: Frames per second of video.
        max_frames: Upper limit; longer videos are sampled more sparsely.

    Raises:
        VideoError: The file is not a usable video. It may come after some frames were yielded: use all frames of a
            video or none.
        OSError: The file cannot be read.
    """
    return _sample_frames_at(file, lambda _, duration_s: compute_sample_times(duration_s, fps, max_frames))


def sample_n_frames(file: Path | BinaryIO, n_frames: int) -> Iterator[bytes]:
    """Yield exactly `n_frames` frames as JPEG, evenly spread over all frames; those of a short video repeat.

    As LLaVA-OneVision's model of lmms-eval does it, which the paper was evaluated with. The frames of a video whose
    rate varies are those on screen at evenly spread times.

    Raises:
        VideoError: The file is not a usable video; see `sample_frames`.
        OSError: The file cannot be read.
    """

    def compute_times(stream: VideoStream, duration_s: float) -> list[float]:
        if not stream.average_rate:
            raise VideoError("broken_video", "its frame rate is unknown")
        rate = float(stream.average_rate)
        n_available = stream.frames or max(1, round(duration_s * rate))
        # The middle of a frame's time on screen: time stamps are rounded.
        return [(index + 0.5) / rate for index in pick_exactly(n_available, n_frames)]

    return (data for _, data in _sample_frames_at(file, compute_times))


def _sample_frames_at(
    file: Path | BinaryIO, compute_times: Callable[[VideoStream, float], list[float]]
) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds, JPEG bytes) at the times that are computed from the stream and its duration."""
    try:
        with _open_container(file) as container:
            if not container.streams.video:
                raise VideoError("no_video_stream", "the file has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError("broken_video", "its codec is unknown")
            _check_frame_size(stream.codec_context.width, stream.codec_context.height)
            duration_s = _read_duration(container, stream)
            if duration_s is None:
                raise VideoError("no_frames", "the file holds no frame")
            for target_s, frame in _iter_frames_at(container, stream, compute_times(stream, duration_s)):
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
        raise VideoError("not_a_video", "the file is not in a supported video format") from error


def compute_sample_times(duration_s: float, fps: float, max_frames: int) -> list[float]:
    """Return the seconds at which a video of this length is sampled.

    They are 0, 1/fps, 2/fps, ..., or `max_frames` of these, evenly spaced, if there are more.
    """
    n_frames = max(1, math.ceil(duration_s * fps - 1e-6))
    return [index / fps for index in pick_evenly(n_frames, max_frames)]


@dataclass(slots=True)
class _DecoderPosition:
    """Position of the decoder. `may_seek` becomes False once a seek did not help, so that nothing is decoded twice."""

    time_s: float = -1.0
    may_seek: bool = True


def _iter_frames_at(
    container: InputContainer, stream: VideoStream, targets_s: list[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield, for every target, the last frame that starts at or before it."""
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
        raise VideoError("broken_video", "a frame has no time stamp")
    return frame.time - start_s


def _get_frame_duration(frame: av.VideoFrame) -> float:
    """Return the seconds that the frame stays on screen, which are many for the last one of a slide show."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


def _read_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the seconds from the header, else from the packets' time stamps; None if there is no packet.

    The whole file's duration, which may be that of its sound, is used only if the video stream does not give its own
    (Matroska has it in a tag).
    """
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
    """Return whether the file begins like an mp4."""
    if isinstance(file, Path):
        with file.open("rb") as handle:
            return handle.read(8)[4:] == b"ftyp"
    file.seek(0)
    return file.read(8)[4:] == b"ftyp"


def _check_frame_size(width: int, height: int) -> None:
    try:
        check_image_size(width, height)
    except ImageError as error:
        raise VideoError("no_frames" if error.code == "zero_size" else error.code, error.message) from error


def _encode_jpeg(frame: av.VideoFrame) -> bytes:
    """Encode the frame upright: a phone's display matrix is applied (PyAV gives the counterclockwise angle)."""
    image = frame.to_image()
    return encode_image(image.rotate(frame.rotation, expand=True) if frame.rotation else image)
