"""The image formats that can be read, and names for what else arrives in place of an image."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from PIL import features

HEIC_MODULE = "pillow_heif"
"""Adds HEIC to Pillow; the extra `heic`."""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_JPEG2000_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def _list_formats() -> tuple[str, ...]:
    formats = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
    if features.check("avif"):
        formats.append("AVIF")
    if find_spec(HEIC_MODULE) is not None:
        import_module(HEIC_MODULE).register_heif_opener(thumbnails=False)
        formats.append("HEIF")
    return tuple(formats)


IMAGE_FORMATS = _list_formats()
"""Pillow's names of the formats that are tried. AVIF and HEIC are among them where they are installed."""


def describe_unreadable(data: bytes) -> tuple[str, str]:
    """Return the error code of bytes that are no image in one of `IMAGE_FORMATS`, and what to do about them."""
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if data.startswith(_LFS_POINTER):
        return "lfs_pointer", "a Git LFS pointer and not the image; run `git lfs pull` where the file is from"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in IMAGE_FORMATS:
        return "heic_image", "HEIC is read after `pip install 'mvl[heic]'`"
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS and "AVIF" not in IMAGE_FORMATS:
        return "avif_image", "AVIF is read by a Pillow that has it: install Pillow's own wheel"
    if data.startswith(_JPEG2000_SIGNATURES):
        return "jpeg2000_image", "JPEG 2000 is not read; convert it to PNG first"
    if b"<svg" in start:
        return "svg_image", "an SVG drawing has no pixels; convert it to PNG first"
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start[:512]:
        return "html_page", "a web page and not the image: an error page or a login; fetch the image again"
    return (
        "not_an_image",
        f"{len(data)} bytes that start with {data[:8].hex(' ')} are none of {', '.join(IMAGE_FORMATS)}",
    )
