"""Results that every reader yields: a `Sample`, or a `RejectedRow` with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

TurnRole = Literal["system", "human", "gpt"]


class Turn(msgspec.Struct, frozen=True, gc=False, rename={"role": "from"}):
    """One message, written in JSON as LLaVA does.

    Human turns hold one `<image>` marker per image (in order), or one `<video>` marker.
    """

    role: TurnRole
    value: str


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that has not been decoded: its bytes, or a file below the source's root."""

    name: str
    data: bytes | None = None
    path: Path | None = None

    def read(self, max_bytes: int = 256 << 20) -> bytes:
        """Return the bytes.

        Raises:
            ValueError: There are more than `max_bytes`.
            OSError: The file cannot be read.
        """
        if self.data is not None:
            data = self.data
        else:
            assert self.path is not None
            if self.path.stat().st_size > max_bytes:
                raise ValueError(f"{self.name} is larger than {max_bytes} bytes")
            data = self.path.read_bytes()
        if len(data) > max_bytes:
            raise ValueError(f"{self.name} is larger than {max_bytes} bytes")
        return data

    def estimate_bytes(self) -> int:
        """Return about how many bytes `read` gives, 0 where that is not known; nothing is read."""
        if self.data is not None:
            return len(self.data)
        try:
            return 0 if self.path is None else self.path.stat().st_size
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Video:
    """A video file below the source's root; its frames are sampled at ingest."""

    name: str
    path: Path

    @contextmanager
    def open_file(self) -> Iterator[Path | BinaryIO]:
        """Yield what `media.video` samples frames from. Raises `OSError` when it cannot be read."""
        yield self.path


@dataclass(frozen=True, slots=True)
class FrameFolder(Video):
    """A video given as a folder (`path`) of its frames: those to take, with their times in seconds."""

    frames: tuple[tuple[float, EncodedImage], ...] = ()


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One row of a source, as its files say it.

    There is one `<image>` marker per image over all turns, none of them in an answer: readers add missing leading
    markers (`add_image_markers`) and reject other disagreements as `marker_mismatch`.

    Attributes:
        file: File of the row, relative to the source's root.
        position: Number of the row in the file, from 0.
        turns: The conversation.
        native_id: The source's own id.
        images: The images, in the order of their markers.
        video: The video of a sample that has one.
        upstream_dataset: The data set that a collection says the row is from.
    """

    file: str
    position: int
    turns: tuple[Turn, ...]
    native_id: str | None = None
    images: tuple[EncodedImage, ...] = ()
    video: Video | None = None
    upstream_dataset: str | None = None

    def count_chars(self) -> int:
        """Count the characters of the conversation."""
        n_chars = 0
        for turn in self.turns:
            n_chars += len(turn.value)
        return n_chars


class RejectedRow(msgspec.Struct, frozen=True, gc=False):
    """A row that cannot be used. `error` is a snake_case class such as `bad_json` or `missing_image`."""

    file: str
    position: int
    error: str
    message: str
    native_id: str | None = None


Reader = Callable[["SourceSpec", Path], Iterator[Sample | RejectedRow]]
