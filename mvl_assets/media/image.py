"""Looking at pictures: is it one, how large, what does it look like; and one standard form for models.

Belongs here: everything that decodes a still picture. Does not: video (`video`), tiles and token counts (`tiles`).

Pictures come from strangers. The size in the header is checked before anything is decoded, only the formats below are
tried, and a picture counts as good only after its last pixel was decoded (`verify()` does not notice a truncation).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mvl_assets.common.digest import digest_hex

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 64_000_000
"""Larger pictures are refused undecoded: 64 MP is 192 MB in RGB, nearly four times the paper's largest."""

MAX_SCANNED = 1 << 31
"""Pixels times scans of a JPEG. A progressive one has about ten scans; a few bytes make one more, and each covers the
whole picture. At this bound decoding takes some two seconds."""

SHORTEST, LONGEST, STEEPEST = 224, 4096, 7
"""The paper's bounds (arXiv 2412.05237 §2): sides in pixels, and long side : short side."""

JPEGS = ("JPEG", "MPO")
"""What Pillow calls a JPEG; the second holds more pictures behind the first, as many phones and cameras write it."""

SCAN_BYTES = 8
"""The header of a scan over one channel, its marker not counted."""

BAND = 256
"""Rows of a picture that are in hand at a time as numbers."""

LYING = (5, 6, 7, 8)
"""EXIF orientations of pictures that are stored lying on their side."""

HASHED = 64
"""Pixels that the short side keeps at least before the perceptual hash is taken."""

WHITE = (255, 255, 255)
GREY = (128, 128, 128)
"""The middle of the value range: after normalising with mean 0.5 every patch is nearly zero."""

# Pillow only warns between one and two times its limit; here the limit is a limit.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
# What it finds odd about a picture that it decodes all the same would fill the log of a run over millions.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PictureError(Exception):
    """Bytes that are no usable picture.

    `error` is one of `not_a_picture`, `svg_picture`, `zero_size`, `too_many_pixels`, `too_many_scans`,
    `truncated_picture`, `broken_picture`. (Pillow itself refuses most headers with a side of zero, as `not_a_picture`.)
    """

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(f"{error}: {message}")


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What a full decode showed. Sides are pixels as a viewer shows the picture (after its EXIF turn), so that what
    `standardise` makes of it can be computed without the picture; `format` and `mode` as Pillow says.

    `phash` is 16 hex digits: the 64-bit perceptual hash (ImageHash's `phash`) of the first frame as a viewer shows it.
    """

    width: int
    height: int
    format: str
    frames: int
    mode: str
    phash: str


@dataclass(frozen=True, slots=True)
class StandardSize:
    """How a picture is brought within the paper's bounds: scaled to `scaled`, then padded with white to `canvas`."""

    scaled: tuple[int, int]
    canvas: tuple[int, int]
    verdict: Literal["as_is", "resized", "padded"]


def image_id(data: bytes) -> str:
    """The id of a picture: 32 hex characters, digest of its original bytes."""
    return digest_hex(data)


def inspect(data: bytes) -> PictureInfo:
    """Decodes the whole first frame and says what it is. Raises `PictureError`."""
    with _decoding():
        image = _open(data)
        mode, (width, height) = image.mode, image.size
        if image.format in JPEGS:
            # All of the file is still read and unpacked; only colours and pixels that the hash has no use for are not
            # computed. What is cut off or broken shows as it does in full.
            shrink = _shrink(image)
            image.draft("L", (width // shrink, height // shrink))
        upright = _turned(image)
        if image.getexif().get(ExifTags.Base.Orientation) in LYING:
            width, height = height, width
        phash = _perceptual_hash(upright)
        frames = int(getattr(image, "n_frames", 1))
        if frames > len(data):  # a header may claim billions
            raise PictureError("broken_picture", f"{frames} frames in {len(data)} bytes")
    return PictureInfo(width, height, str(image.format), frames, mode, phash)


def standardise(data: bytes) -> Image.Image:
    """The one form in which pictures go to models. Raises `PictureError`.

    First frame, turned as its EXIF orientation says, RGB over white, sides within 224 to 4,096 px and at most 7:1. The
    paper does not say how it adjusted pictures outside the bounds; here they are scaled (Lanczos, same aspect ratio)
    and, when longer than 7:1, centred on a white canvas of 7:1, so that nothing is cropped or distorted.
    """
    with _decoding():
        image = _upright(_open(data))
        size = standard_size(*image.size)
        if size.scaled != image.size:
            image = image.resize(size.scaled, Image.Resampling.LANCZOS)
        if size.canvas != image.size:
            canvas = Image.new("RGB", size.canvas, WHITE)
            left = (size.canvas[0] - image.width) // 2
            canvas.paste(image, (left, (size.canvas[1] - image.height) // 2))
            image = canvas
    return image


def standard_size(width: int, height: int) -> StandardSize:
    """What `standardise` does to a picture of this size; computed without the picture."""
    long, short = max(width, height), min(width, height)
    # The short side of the canvas, were it padded first: padding needs less enlarging than the picture alone would.
    canvas_short = max(short, long / STEEPEST)
    scale = 1.0
    if long > LONGEST:
        scale = LONGEST / long
    elif canvas_short < SHORTEST:
        scale = SHORTEST / canvas_short
    scaled = (width, height) if scale == 1.0 else tuple(max(1, round(side * scale)) for side in (width, height))
    least = max(SHORTEST, -(-max(scaled) // STEEPEST))
    canvas = tuple(max(side, least) for side in scaled)
    verdict: Literal["as_is", "resized", "padded"] = "as_is"
    if canvas != scaled:
        verdict = "padded"
    elif scale != 1.0:
        verdict = "resized"
    return StandardSize((scaled[0], scaled[1]), (canvas[0], canvas[1]), verdict)


def encode(image: Image.Image, format: Literal["JPEG", "PNG"] = "JPEG") -> bytes:
    """The picture as a file. Equal pixels give equal bytes: fixed settings, no metadata."""
    plain = image if image.mode == "RGB" else image.convert("RGB")
    buffer = io.BytesIO()
    if format == "JPEG":
        plain.save(buffer, "JPEG", quality=90, subsampling=0, exif=b"", icc_profile=None)
    else:
        plain.save(buffer, "PNG", compress_level=6, exif=b"", icc_profile=None)
    return buffer.getvalue()


def blank_like(data: bytes) -> bytes:
    """A grey PNG with the size `data` has once it is standardised, so that it becomes the same number of tokens: the
    control for what a model answers from the language alone. Raises `PictureError` when `data` is no picture.
    """
    return encode(Image.new("RGB", standardise(data).size, GREY), "PNG")


def thumbnail(data: bytes, px: int = 96) -> bytes:
    """A JPEG of a few kB whose longer side is at most `px`, for previews. Raises `PictureError`."""
    with _decoding():
        image = _open(data)
        image.draft("RGB", (2 * px, 2 * px))
        image = _upright(image)
        image.thumbnail((px, px), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75, exif=b"", icc_profile=None)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    """The picture with its header read and its size checked; no pixel is decoded yet."""
    if not data:
        raise PictureError("not_a_picture", "no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if b"<svg" in data[:4096].lower():
            raise PictureError("svg_picture", "an SVG drawing has no pixels; convert it to PNG first") from error
        raise PictureError(
            "not_a_picture", f"{len(data)} bytes that start with {data[:8].hex(' ')} are none of {', '.join(FORMATS)}"
        ) from error
    check_size(*image.size)
    if image.format in JPEGS:
        most = MAX_SCANNED // (image.width * image.height)
        # No scan is shorter than its header, and one byte is searched for faster than two: most files end at these.
        if len(data) > SCAN_BYTES * most and data.count(b"\xda") > most and (scans := data.count(b"\xff\xda")) > most:
            raise PictureError("too_many_scans", f"{scans} scans over {image.width} x {image.height} pixels")
    return image


def check_size(width: int, height: int) -> None:
    """Raises `PictureError` for a size that cannot be or that nobody should decode."""
    if width < 1 or height < 1:
        raise PictureError("zero_size", f"{width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise PictureError("too_many_pixels", f"{width} x {height} pixels are more than {MAX_PIXELS:,}")


@contextmanager
def _decoding() -> Iterator[None]:
    """Turns whatever a decoder throws at hostile bytes into `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).split(" exceeds")[0]
        raise PictureError("too_many_pixels", f"{size} is above {MAX_PIXELS:,}") from error
    except MemoryError as error:
        raise PictureError("too_many_pixels", "not enough memory to decode it") from error
    except Exception as error:
        # Decoders fail in many ways (OSError, SyntaxError, struct.error, zlib.error, EOFError, ...): all are its fault.
        text = str(error) or type(error).__name__
        short = isinstance(error, EOFError) or any(t in text.lower() for t in ("truncated", "end of file", "eof"))
        raise PictureError("truncated_picture" if short else "broken_picture", text[:300]) from error


def _upright(image: Image.Image) -> Image.Image:
    """First frame as a viewer shows it: EXIF turn applied, RGB over white."""
    flat = _over_white(_turned(image))
    return flat if flat.mode == "RGB" else flat.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    """As the EXIF orientation says. Decodes; makes no copy of a picture that stands upright."""
    image.load()
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return image if upright else ImageOps.exif_transpose(image)


def _over_white(image: Image.Image) -> Image.Image:
    """RGB or L, with what is transparent shown white."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        flat = Image.new("RGB", layer.size, WHITE)
        flat.paste(layer, mask=layer)
        return flat
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float pictures as L. Pillow's own conversion clips at 255, which turns most of them white.

    Goes through the picture in bands: as numbers of 32 bits a large one takes four times its own memory.
    """
    highest = max(float(band.max(initial=0.0)) for _, band in _bands(image))
    white = 255.0 if image.mode in ("I", "F") and highest <= 255.0 else max(65535.0, highest)
    if image.mode == "F" and highest <= 1.0:
        white = 1.0
    result = np.empty((image.height, image.width), np.uint8)
    for top, band in _bands(image):
        result[top : top + len(band)] = np.clip(band * (255.0 / white), 0, 255)
    return Image.fromarray(result)


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, values) of a picture of one channel, from top to bottom."""
    for top in range(0, image.height, BAND):
        band = image.crop((0, top, image.width, min(top + BAND, image.height)))
        yield top, np.nan_to_num(np.asarray(band, dtype=np.float32), posinf=0.0, neginf=0.0)


def _perceptual_hash(upright: Image.Image) -> str:
    import imagehash  # brings scipy: only where pictures are really looked at

    flat = _over_white(upright)
    shrink = _shrink(flat)
    return str(imagehash.phash(flat.reduce(shrink) if shrink > 1 else flat))


def _shrink(image: Image.Image) -> int:
    """By how much a picture is made smaller before its hash is taken: a power of two, as JPEG's decoder has them, so
    the same picture in two formats comes to the same size."""
    return 1 << (max(1, min(image.size) // HASHED).bit_length() - 1)
