"""The pictures of a batch of rows: read, named by their bytes, looked at once, stored before the rows that use them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import ImageRow
from mvl_assets.media.image import PictureError, image_id, inspect
from mvl_assets.readers.rows import RowError
from mvl_assets.readers.sample import FrameFolder, Picture, Sample, Video

MAX_PICTURE = 128 << 20
MAX_ROW = 512 << 20
"""Bytes of one picture file, and of all pictures of one row."""

VIDEOS_REMEMBERED = 4096

Looks = dict[str, "Future[ImageRow | PictureError]"]
"""Pictures by id that are being looked at."""


class PictureBatch:
    """Pictures on their way into the lake. `held` is what waits in memory, in bytes; the caller bounds it."""

    def __init__(self, lake: Lake) -> None:
        self.held = 0
        self.stored = 0
        self.stored_bytes = 0
        self._lake = lake
        self._waiting: dict[str, bytes] = {}
        self._looks: Looks = {}
        self._videos: OrderedDict[Video, tuple[list[str], list[float]]] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="decode")

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def add_pictures(self, sample: Sample) -> list[str]:
        """Reads a sample's pictures and returns their ids. Raises `RowError`; nothing is decoded yet."""
        return self._keep([(image_id(data), data) for data in _bytes_of_all(sample.pictures)])

    def add_video(self, video: Video) -> tuple[list[str], list[float]]:
        """Samples a video's frames; returns their ids and times in seconds. Raises `RowError`."""
        known = self._videos.get(video)
        # Its frames are read again when they neither wait nor were stored: the rows that had them may all be rejected.
        if known is not None and not self._lake.images.missing(set(known[0]) - self._waiting.keys()):
            self._videos.move_to_end(video)
            return known
        frames = frames_of(video)
        ids = self._keep([(image_id(data), data) for _, data in frames])
        known = self._videos[video] = (ids, [seconds for seconds, _ in frames])
        if len(self._videos) > VIDEOS_REMEMBERED:
            self._videos.popitem(last=False)
        return known

    def look(self) -> Looks:
        """Has the waiting pictures that the lake lacks looked at by threads; none is waiting afterwards."""
        missing = self._lake.images.missing(self._waiting)
        # A picture of the rows before may not be stored yet.
        self._looks = {
            name: self._looks.get(name) or self._threads.submit(_look, name, data)
            for name, data in self._waiting.items()
            if name in missing
        }
        self._waiting = {}
        self.held = 0
        return self._looks

    def store(self, looks: Looks, rows: Iterable[list[str]]) -> dict[str, PictureError]:
        """Stores the good ones of the pictures that `rows` (lists of ids) use, once they have been looked at.

        Returns the bad ones with the reason. A picture is stored only when a row of good pictures uses it.
        """
        looked = {name: look.result() for name, look in looks.items()}
        bad = {name: found for name, found in looked.items() if isinstance(found, PictureError)}
        used = {name for ids in rows if not bad.keys() & set(ids) for name in ids}
        lacking = self._lake.images.missing(used & looked.keys())
        good = [found for name, found in looked.items() if isinstance(found, ImageRow) and name in lacking]
        self.stored += self._lake.images.insert(good)
        self.stored_bytes += sum(len(row.data) for row in good)
        return bad

    def _keep(self, found: list[tuple[str, bytes]]) -> list[str]:
        for name, data in found:
            if name not in self._waiting:
                self._waiting[name] = data
                self.held += len(data)
        return [name for name, _ in found]


def _look(name: str, data: bytes) -> ImageRow | PictureError:
    try:
        info = inspect(data)
    except PictureError as error:
        return error
    return ImageRow(name, data, info.format, info.width, info.height, info.frames, info.mode, info.phash)


def frames_of(video: Video) -> list[tuple[float, bytes]]:
    """(seconds, bytes of a picture) of a video's frames: sampled, or as they lie in its folder. Raises `RowError`."""
    if isinstance(video, FrameFolder):
        times, pictures = zip(*video.frames, strict=True)
        return list(zip(times, _bytes_of_all(pictures), strict=True))
    from mvl_assets.media.video import VideoError, sample_frames  # brings FFmpeg, which few sources need

    try:
        with video.opened() as file:
            return list(sample_frames(file))
    except VideoError as error:
        raise RowError(error.error, f"{video.name}: {error.message}") from error
    except OSError as error:
        raise RowError("unreadable_video", f"{video.name}: {error.strerror or error}") from error


def _bytes_of_all(pictures: Iterable[Picture]) -> Iterator[bytes]:
    """The bytes of a row's pictures, together at most `MAX_ROW`."""
    room = MAX_ROW
    for picture in pictures:
        data = _bytes_of(picture, room)
        room -= len(data)
        yield data


def _bytes_of(picture: Picture, room: int) -> bytes:
    try:
        return picture.read(min(MAX_PICTURE, room))
    except ValueError as error:
        raise RowError("picture_too_large", str(error)) from error
    except OSError as error:
        raise RowError("unreadable_picture", f"{picture.name}: {error.strerror or error}") from error
