"""The images of a shard: read, identified by their bytes, decoded once, written as fragments before the rows."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.rejects import RejectError
from mvl_assets.ingest.fragment_writer import FragmentWriter
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.images import build_image_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import ImageError, compute_image_id, inspect_image
from mvl_assets.readers.sample import EncodedImage, FrameFolder, Sample, Video

MAX_IMAGE_BYTES = 128 << 20
MAX_ROW_BYTES = 512 << 20
"""Largest number of bytes of one image file, and of all images of one row."""

VIDEO_CACHE_SIZE = 4096
"""Videos whose frame ids are remembered."""

PendingDecodes = dict[str, "Future[ImageRow | ImageError]"]
"""Images that are being decoded, by id."""


class ImageBatch:
    """Images of one shard on their way into the lake, where they are visible once their fragments are committed.

    `pending_bytes` counts the bytes waiting in memory; the caller bounds it.
    """

    def __init__(self, lake: Lake, source: str) -> None:
        self.pending_bytes = 0
        self.written_bytes = 0
        self._source = source
        self._images = lake.get_images(source)
        self._writer: FragmentWriter | None = None
        self._written: dict[str, ImageProperties] = {}
        self._pending: dict[str, bytes] = {}
        self._decodes: PendingDecodes = {}
        self._video_cache: OrderedDict[Video, tuple[list[str], list[float]]] = OrderedDict()
        self._executor = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="decode")

    @property
    def n_written(self) -> int:
        """Number of images that were written."""
        return len(self._written)

    def finish(self) -> UncommittedFragments | None:
        """Stop the decoding threads, and return what was written; None without any image."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        return None if self._writer is None else self._writer.finish()

    def cancel(self) -> None:
        """Stop decoding and writing."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._writer is not None:
            self._writer.cancel()

    def add_images(self, sample: Sample) -> list[str]:
        """Read a sample's images and return their ids. Raises `RejectError`; nothing is decoded yet."""
        return self._queue([(compute_image_id(data), data) for data in _iter_image_bytes(sample.images)])

    def add_video(self, video: Video) -> tuple[list[str], list[float]]:
        """Sample a video's frames and return their ids and times in seconds. Raises `RejectError`."""
        cached = self._video_cache.get(video)
        # Frames that are neither pending nor stored are read again: all rows that had them may have been rejected.
        if cached is not None and not self._find_missing(set(cached[0]) - self._pending.keys()):
            self._video_cache.move_to_end(video)
            return cached
        frames = read_frames(video)
        image_ids = self._queue([(compute_image_id(data), data) for _, data in frames])
        cached = self._video_cache[video] = (image_ids, [time_s for time_s, _ in frames])
        if len(self._video_cache) > VIDEO_CACHE_SIZE:
            self._video_cache.popitem(last=False)
        return cached

    def submit_decodes(self) -> PendingDecodes:
        """Submit the pending images that the lake lacks to the decoding threads; none is pending afterwards."""
        missing = self._find_missing(self._pending)
        # An image of the previous batch may not be written yet.
        self._decodes = {
            image_id: self._decodes.get(image_id) or self._executor.submit(_decode, image_id, data)
            for image_id, data in self._pending.items()
            if image_id in missing
        }
        self._pending = {}
        self.pending_bytes = 0
        return self._decodes

    def write_images(self, decodes: PendingDecodes, row_image_ids: Iterable[list[str]]) -> dict[str, ImageError]:
        """Wait for the decodes and write the good images.

        Args:
            decodes: What `submit_decodes` returned.
            row_image_ids: Image ids of each row. An image is stored only if a row with only good images uses it.

        Returns:
            The bad images by id, with the reason.
        """
        results = {name: future.result() for name, future in decodes.items()}
        errors = {name: result for name, result in results.items() if isinstance(result, ImageError)}
        used = {name for ids in row_image_ids if not errors.keys() & set(ids) for name in ids}
        missing = self._find_missing(used & results.keys())
        image_rows = [row for name, row in results.items() if isinstance(row, ImageRow) and name in missing]
        if image_rows:
            if self._writer is None:
                self._writer = FragmentWriter(self._images.table, self._source)
            self._writer.write(build_image_table(image_rows, self._source))
            self._written.update((row.image_id, row.properties) for row in image_rows)
            self.written_bytes += sum(len(row.data) for row in image_rows)
        return errors

    def read_properties(self, image_ids: Iterable[str]) -> dict[str, ImageProperties]:
        """Return the properties of good images by id: of those of this shard, and of those that were stored before."""
        unique_ids = set(image_ids)
        properties = {name: self._written[name] for name in unique_ids & self._written.keys()}
        return properties | self._images.read_properties(unique_ids - properties.keys())

    def _find_missing(self, image_ids: Iterable[str]) -> set[str]:
        unwritten = set(image_ids) - self._written.keys()
        return self._images.find_missing(unwritten) if unwritten else unwritten

    def _queue(self, images: list[tuple[str, bytes]]) -> list[str]:
        for image_id, data in images:
            if image_id not in self._pending:
                self._pending[image_id] = data
                self.pending_bytes += len(data)
        return [name for name, _ in images]


def _decode(image_id: str, data: bytes) -> ImageRow | ImageError:
    try:
        image = inspect_image(data)
    except ImageError as error:
        return error
    return ImageRow(
        image_id,
        data,
        image.format,
        image.width,
        image.height,
        image.n_frames,
        image.mode,
        image.phash,
        image.pdq,
        image.pdq_quality,
        image.trimmed_pdq,
        image.sharpness,
    )


def read_frames(video: Video) -> list[tuple[float, bytes]]:
    """Return (seconds, image bytes) of a video's frames, sampled or as given by its folder. Raises `RejectError`."""
    if isinstance(video, FrameFolder):
        times, images = zip(*video.frames, strict=True)
        return list(zip(times, _iter_image_bytes(images), strict=True))
    from mvl_assets.media.video import VideoError, sample_frames  # brings FFmpeg, which few sources need

    try:
        with video.open_file() as file:
            return list(sample_frames(file))
    except VideoError as error:
        raise RejectError(error.code, f"{video.name}: {error.message}") from error
    except OSError as error:
        raise RejectError("unreadable_video", f"{video.name}: {error.strerror or error}") from error


def _iter_image_bytes(images: Iterable[EncodedImage]) -> Iterator[bytes]:
    """Yield the bytes of a row's images, together at most `MAX_ROW_BYTES`."""
    remaining_bytes = MAX_ROW_BYTES
    for image in images:
        data = _read_image_bytes(image, remaining_bytes)
        remaining_bytes -= len(data)
        yield data


def _read_image_bytes(image: EncodedImage, remaining_bytes: int) -> bytes:
    try:
        return image.read(min(MAX_IMAGE_BYTES, remaining_bytes))
    except ValueError as error:
        raise RejectError("image_too_large", str(error)) from error
    except OSError as error:
        raise RejectError("unreadable_image", f"{image.name}: {error.strerror or error}") from error
