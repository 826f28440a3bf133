"""Decoding, checking and standardising still images.

Images come from untrusted files. The size in the header is checked before anything is decoded, only the formats below
are tried, and an image counts as good only after its last pixel was decoded (`verify()` does not notice truncation).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.rejects import RejectError
from mvl_assets.media.image_formats import IMAGE_FORMATS, describe_unreadable
from mvl_assets.media.image_hashes import compute_image_hashes
from mvl_assets.media.sharpness import MIN_SHARPNESS_SIDE, measure_sharpness

MAX_PIXELS = 64_000_000
"""Larger images are rejected undecoded: 64 MP is 192 MB in RGB, nearly four times the paper's largest."""

MAX_SCANNED_PIXELS = 1 << 31
"""Pixels times scans of a JPEG. A progressive JPEG has about ten scans; a few bytes add one more, and each covers the
whole image. At this limit decoding takes some two seconds."""

MIN_SIDE, MAX_SIDE, MAX_ASPECT_RATIO = 224, 4096, 7
"""The paper's bounds (arXiv 2412.05237 §2): sides in pixels, and long side : short side."""

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of a JPEG. MPO, which many phones and cameras write, has more images after the first."""

SCAN_HEADER_BYTES = 8
"""Bytes of the header of a scan over one channel, without its marker."""

BAND_ROWS = 256
"""Rows of an image that are converted to numbers at a time."""

ROTATED_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

MIN_HASH_SIDE = 64
"""Smallest short side, in pixels, to which an image is reduced before its perceptual hash is computed."""

WHITE = (255, 255, 255)
GREY = (128, 128, 128)
"""The middle of the value range: after normalising with mean 0.5 every patch is nearly zero."""

# Pillow only warns between one and two times its limit; here exceeding the limit is an error.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
# Warnings about images that decode all the same would flood the log of a run over millions.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(RejectError):
    """Bytes that are not a usable image.

    `code` is one of `zero_size`, `too_many_pixels`, `too_many_scans`, `truncated_image`, `broken_image`, or what
    `describe_unreadable` calls bytes that are no image: `not_an_image`, `lfs_pointer`, `html_page`, ... (Pillow itself
    refuses most headers with a side of zero, as `not_an_image`.)
    """


@dataclass(frozen=True, slots=True)
class StandardSize:
    """Sizes by which an image is brought within the paper's bounds: scaled to `scaled`, padded with white to `canvas`.

    Both are (width, height) in pixels.
    """

    scaled: tuple[int, int]
    canvas: tuple[int, int]
    action: Literal["as_is", "resized", "padded"]


def compute_image_id(data: bytes) -> str:
    """Return the id of an image: 32 hex characters, the digest of its original bytes."""
    return compute_digest(data)


def inspect_image(data: bytes) -> ImageProperties:
    """Decode the whole first frame and return the image's properties.

    Width and height are those after the EXIF rotation, so that `compute_standard_size` works on them.

    Raises:
        ImageError: The bytes are not a usable image.
    """
    with _translate_decode_errors():
        image = _open_image(data)
        mode, (width, height) = image.mode, image.size
        if image.format in JPEG_FORMATS:
            # The whole file is still read and unpacked, so truncation and damage show as in a full decode; only colours
            # and pixels that nothing below needs are not computed.
            reduction_factor = _compute_reduction_factor(image, MIN_SHARPNESS_SIDE)
            image.draft("L", (width // reduction_factor, height // reduction_factor))
        upright = _apply_exif_orientation(image)
        if image.getexif().get(ExifTags.Base.Orientation) in ROTATED_ORIENTATIONS:
            width, height = height, width
        reduced = _reduce(upright, MIN_SHARPNESS_SIDE)
        hashes, sharpness = compute_image_hashes(_reduce(reduced, MIN_HASH_SIDE)), measure_sharpness(reduced)
        n_frames = int(getattr(image, "n_frames", 1))
        if n_frames > len(data):  # a header may claim billions
            raise ImageError("broken_image", f"{n_frames} frames in {len(data)} bytes")
    return ImageProperties(
        len(data), str(image.format), width, height, n_frames, mode, **asdict(hashes), sharpness=sharpness
    )


def standardise_image(data: bytes) -> Image.Image:
    """Return an image in the standard form in which all models get it.

    First frame, EXIF orientation applied, RGB over white, sides within 224 to 4,096 px and at most 7:1. The paper does
    not say how it adjusted images outside the bounds; here they are scaled (Lanczos, same aspect ratio) and, if longer
    than 7:1, centred on a white canvas of 7:1, so that nothing is cropped or distorted.

    Raises:
        ImageError: The bytes are not a usable image.
    """
    with _translate_decode_errors():
        image = _to_upright_rgb(_open_image(data))
        target_size = compute_standard_size(*image.size)
        if target_size.scaled != image.size:
            image = image.resize(target_size.scaled, Image.Resampling.LANCZOS)
        if target_size.canvas != image.size:
            canvas = Image.new("RGB", target_size.canvas, WHITE)
            left = (target_size.canvas[0] - image.width) // 2
            canvas.paste(image, (left, (target_size.canvas[1] - image.height) // 2))
            image = canvas
    return image


def compute_standard_size(width: int, height: int) -> StandardSize:
    """Return what `standardise_image` does to an image of this size in pixels; needs no pixels."""
    long_side, short_side = max(width, height), min(width, height)
    # Short side of the canvas if the image were padded first: it needs less enlarging than the image alone would.
    canvas_short = max(short_side, long_side / MAX_ASPECT_RATIO)
    scale = 1.0
    if long_side > MAX_SIDE:
        scale = MAX_SIDE / long_side
    elif canvas_short < MIN_SIDE:
        scale = MIN_SIDE / canvas_short
    scaled = (width, height) if scale == 1.0 else tuple(max(1, round(side * scale)) for side in (width, height))
    min_canvas_side = max(MIN_SIDE, -(-max(scaled) // MAX_ASPECT_RATIO))
    canvas = tuple(max(side, min_canvas_side) for side in scaled)
    action: Literal["as_is", "resized", "padded"] = "as_is"
    if canvas != scaled:
        action = "padded"
    elif scale != 1.0:
        action = "resized"
    return StandardSize((scaled[0], scaled[1]), (canvas[0], canvas[1]), action)


def is_standard_size(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return for each of many sizes whether `standardise_image` leaves images of this size as they are."""
    long_sides, short_sides = np.maximum(widths, heights), np.minimum(widths, heights)
    return (short_sides >= MIN_SIDE) & (long_sides <= MAX_SIDE) & (long_sides <= MAX_ASPECT_RATIO * short_sides)


def encode_image(image: Image.Image, format: Literal["JPEG", "PNG"] = "JPEG") -> bytes:
    """Return the image as a file. Equal pixels give equal bytes: fixed settings, no metadata."""
    rgb_image = image if image.mode == "RGB" else image.convert("RGB")
    buffer = io.BytesIO()
    if format == "JPEG":
        rgb_image.save(buffer, "JPEG", quality=90, subsampling=0, exif=b"", icc_profile=None)
    else:
        rgb_image.save(buffer, "PNG", compress_level=6, exif=b"", icc_profile=None)
    return buffer.getvalue()


def build_blank_image(data: bytes) -> bytes:
    """Return a grey PNG of the size that `data` has once standardised, so that it becomes the same number of tokens.

    It is the control for what a model answers from the language alone. Raises `ImageError`.
    """
    return encode_image(Image.new("RGB", standardise_image(data).size, GREY), "PNG")


def build_thumbnail(data: bytes, max_side: int = 96) -> bytes:
    """Return a JPEG of a few kB whose longer side is at most `max_side` pixels, for previews. Raises `ImageError`."""
    with _translate_decode_errors():
        image = _open_image(data)
        image.draft("RGB", (2 * max_side, 2 * max_side))
        image = _to_upright_rgb(image)
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75, exif=b"", icc_profile=None)
    return buffer.getvalue()


def load_small_grey(data: bytes, min_side: int) -> Image.Image:
    """Return an image in grey, upright, reduced by a power of two to a short side of `min_side` pixels or more.

    Raises:
        ImageError: The bytes are not a usable image.
    """
    with _translate_decode_errors():
        image = _open_image(data)
        reduction_factor = _compute_reduction_factor(image, min_side)
        image.draft("L", (image.width // reduction_factor, image.height // reduction_factor))
        reduced = _reduce(_apply_exif_orientation(image), min_side)
        return reduced if reduced.mode == "L" else reduced.convert("L")


def _open_image(data: bytes) -> Image.Image:
    """Return the image with its header read and its size checked; no pixel is decoded yet."""
    if not data:
        raise ImageError("not_an_image", "no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(*describe_unreadable(data)) from error
    check_image_size(*image.size)
    if image.format in JPEG_FORMATS:
        max_scans = MAX_SCANNED_PIXELS // (image.width * image.height)
        # No scan is shorter than its header, and one byte is found faster than two: most files need only these tests.
        if (
            len(data) > SCAN_HEADER_BYTES * max_scans
            and data.count(b"\xda") > max_scans
            and (n_scans := data.count(b"\xff\xda")) > max_scans
        ):
            raise ImageError("too_many_scans", f"{n_scans} scans over {image.width} x {image.height} pixels")
    return image


def check_image_size(width: int, height: int) -> None:
    """Raise `ImageError` for a size in pixels that is impossible or too large to decode."""
    if width < 1 or height < 1:
        raise ImageError("zero_size", f"{width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels are more than {MAX_PIXELS:,}")


@contextmanager
def _translate_decode_errors() -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).split(" exceeds")[0]
        raise ImageError("too_many_pixels", f"{size} is above {MAX_PIXELS:,}") from error
    except MemoryError as error:
        raise ImageError("too_many_pixels", "not enough memory to decode it") from error
    except Exception as error:
        # Decoders fail in many ways (OSError, SyntaxError, struct.error, zlib.error, ...): all mean bad bytes.
        text = str(error) or type(error).__name__
        is_truncated = isinstance(error, EOFError) or any(
            t in text.lower() for t in ("truncated", "end of file", "eof")
        )
        raise ImageError("truncated_image" if is_truncated else "broken_image", text[:300]) from error


def _to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame as a viewer shows it: EXIF orientation applied, RGB over white."""
    flattened = _flatten_on_white(_apply_exif_orientation(image))
    return flattened if flattened.mode == "RGB" else flattened.convert("RGB")


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Decode and apply the EXIF orientation; an image that is already upright is not copied."""
    image.load()
    is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    return image if is_upright else ImageOps.exif_transpose(image)


def _flatten_on_white(image: Image.Image) -> Image.Image:
    """Return the image as RGB or L, with transparent parts white."""
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _to_eight_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        flattened = Image.new("RGB", layer.size, WHITE)
        flattened.paste(layer, mask=layer)
        return flattened
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return a 16-bit, 32-bit or float image as L. Pillow's own conversion clips at 255 and turns most white.

    Converts in bands: as 32-bit numbers a large image takes four times its own memory.
    """
    highest = max(float(band.max(initial=0.0)) for _, band in _iter_bands(image))
    white_level = 255.0 if image.mode in ("I", "F") and highest <= 255.0 else max(65535.0, highest)
    if image.mode == "F" and highest <= 1.0:
        white_level = 1.0
    result = np.empty((image.height, image.width), np.uint8)
    for top, band in _iter_bands(image):
        result[top : top + len(band)] = np.clip(band * (255.0 / white_level), 0, 255)
    return Image.fromarray(result)


def _iter_bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, values) of an image of one channel, from top to bottom."""
    for top in range(0, image.height, BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + BAND_ROWS, image.height)))
        yield top, np.nan_to_num(np.asarray(band, dtype=np.float32), posinf=0.0, neginf=0.0)


def _reduce(upright: Image.Image, min_side: int) -> Image.Image:
    flattened = _flatten_on_white(upright)
    reduction_factor = _compute_reduction_factor(flattened, min_side)
    return flattened.reduce(reduction_factor) if reduction_factor > 1 else flattened


def _compute_reduction_factor(image: Image.Image, min_side: int) -> int:
    """Return the factor by which an image is reduced to a short side of `min_side` pixels or more.

    A power of two, as JPEG's decoder has them, so that the same image in two formats comes to the same size.
    """
    return 1 << (max(1, min(image.size) // min_side).bit_length() - 1)
