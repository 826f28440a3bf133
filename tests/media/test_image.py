"""Pictures from strangers: what is good is described and standardised, everything else has a named reason."""

from __future__ import annotations

import io
import struct
import zlib

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from mvl_assets.media.image import (
    MAX_PIXELS,
    ImageError,
    build_thumbnail,
    check_image_size,
    compute_image_id,
    compute_standard_size,
    encode_image,
    inspect_image,
    is_standard_size,
    standardise_image,
)
from mvl_assets.media.image_formats import IMAGE_FORMATS


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Smooth colours with a dark corner at the top left, so that turns and flips show."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    pixels[: height // 2, : width // 2] //= 8
    return Image.fromarray(pixels.astype(np.uint8))


def spots(width: int, height: int) -> Image.Image:
    """Large soft spots: a picture whose hash no rounding turns over."""
    few = np.random.default_rng(1).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def error_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        inspect_image(data)
    return caught.value.code


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_inspect_image_goes_by_content_not_by_name(format: str) -> None:
    info = inspect_image(file_of(scene(), format))
    assert (info.width, info.height, info.format, info.n_frames) == (96, 64, format, 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_truncated_image_is_rejected(format: str) -> None:
    data = file_of(scene(), format)
    # WebP's decoder does not tell short from broken.
    assert error_of(data[: len(data) // 2]) == ("broken_image" if format == "WEBP" else "truncated_image")


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF", b"BM", b"II*\0", b"P6 "]),
)
def test_arbitrary_bytes_give_an_image_or_an_image_error(tail: bytes, head: bytes) -> None:
    try:
        inspect_image(head + tail)
    except ImageError as error:
        assert error.code and error.message


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "not_an_image"),
        (b"<html>404 not found</html>", "html_page"),
        (b"\n<!DOCTYPE html>\n<title>Sign in</title>", "html_page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "lfs_pointer"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "jpeg2000_image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "svg_image"),
        (png_header(20_000, 20_000), "too_many_pixels"),
        (png_header(9_000, 8_000), "too_many_pixels"),
    ],
    ids=["nothing", "an error page", "a login", "lfs", "jpeg 2000", "svg", "400 MP", "72 MP"],
)
def test_unusable_bytes_have_an_error_code(data: bytes, error: str) -> None:
    assert error_of(data) == error


@pytest.mark.skipif("AVIF" not in IMAGE_FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_read_upright_and_bounded() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = file_of(Image.new("RGB", (300, 240), "red"), "AVIF", exif=exif)
    properties = inspect_image(data)
    assert (properties.format, properties.width, properties.height) == ("AVIF", 240, 300)
    assert standardise_image(data).size == (240, 300)
    assert error_of(data[: len(data) // 2]) in ("broken_image", "truncated_image", "not_an_image")


def test_heic_is_read_or_names_what_reads_it() -> None:
    if "HEIF" not in IMAGE_FORMATS:
        assert error_of(b"\0\0\0\x18ftypheic" + bytes(40)) == "heic_image"
        return
    data = file_of(Image.new("RGB", (300, 240), "red"), "HEIF")
    properties = inspect_image(data)
    assert (properties.format, properties.width, properties.height) == ("HEIF", 300, 240)


def test_pixel_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert MAX_PIXELS < 20_000 * 20_000
    assert error_of(png_header(20_000, 20_000)) == "too_many_pixels"


def test_size_of_zero_has_its_own_code() -> None:
    with pytest.raises(ImageError) as caught:
        check_image_size(0, 5)
    assert caught.value.code == "zero_size"


def test_animation_counts_its_frames_and_shows_the_first() -> None:
    frames = [Image.new("RGB", (300, 300), c) for c in ("red", "lime", "blue")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert inspect_image(data).n_frames == 3
    assert standardise_image(data).getpixel((5, 5)) == (255, 0, 0)


def test_image_id_is_a_digest_of_bytes_not_of_pixels() -> None:
    png, bmp = file_of(scene(), "PNG"), file_of(scene(), "BMP")
    assert compute_image_id(png) == compute_image_id(bytes(png)) != compute_image_id(bmp)
    assert len(compute_image_id(png)) == 32


def test_perceptual_hash_equals_imagehash_and_survives_reencoding() -> None:
    image = spots(640, 480)
    ours = imagehash.hex_to_hash(inspect_image(file_of(image)).phash)
    assert ours - imagehash.phash(image) <= 4
    assert ours - imagehash.hex_to_hash(inspect_image(file_of(image.resize((320, 240)), "JPEG", quality=60)).phash) <= 4
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert ours - imagehash.hex_to_hash(inspect_image(file_of(mirrored)).phash) > 10


def test_exif_rotated_image_is_standardised_and_hashed_upright() -> None:
    upright = spots(640, 480)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    assert (inspect_image(data).width, inspect_image(data).height) == (640, 480)
    result = standardise_image(data)
    assert result.size == (640, 480)
    assert np.abs(np.asarray(result, float) - np.asarray(upright, float)).mean() < 3
    distance = imagehash.hex_to_hash(inspect_image(data).phash) - imagehash.hex_to_hash(
        inspect_image(file_of(upright)).phash
    )
    assert distance <= 4


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA", "I;16", "F"])
def test_every_pixel_mode_becomes_the_same_rgb_image(mode: str) -> None:
    grey = scene(300, 240).convert("L")
    if mode == "I;16":
        data = file_of(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257))
    elif mode in ("CMYK", "F"):
        data = file_of(grey.convert(mode) if mode == "F" else grey.convert("RGB").convert("CMYK"), "TIFF")
    else:
        data = file_of(grey.convert(mode))
    result = standardise_image(data)
    assert result.mode == "RGB"
    tolerance = 12 if mode in ("1", "P") else 3  # dithered
    means = [np.asarray(i, float).reshape(240, 300, -1)[120:].mean() for i in (result, grey)]
    assert means[0] == pytest.approx(means[1], abs=tolerance)


def test_transparent_pixels_become_white() -> None:
    assert standardise_image(file_of(Image.new("RGBA", (300, 300), (9, 9, 9, 0)))).getpixel((1, 1)) == (255, 255, 255)


@settings(deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000))
def test_standard_size_is_within_the_papers_bounds(width: int, height: int) -> None:
    size = compute_standard_size(width, height)
    long, short = max(size.canvas), min(size.canvas)
    assert 224 <= short <= long <= 4096
    assert long <= 7 * short
    assert size.scaled[0] <= size.canvas[0] and size.scaled[1] <= size.canvas[1]
    inside = min(width, height) >= 224 and max(width, height) <= min(4096, 7 * min(width, height))
    assert (size.action == "as_is") == inside == is_standard_size(np.array([width]), np.array([height]))[0]
    assert (size.canvas == (width, height)) == inside
    if min(size.scaled) > 20:
        assert size.scaled[0] / size.scaled[1] == pytest.approx(width / height, rel=0.05)


@pytest.mark.parametrize(
    ("size", "result", "verdict"),
    [((500, 300), (500, 300), "as_is"), ((8000, 4000), (4096, 2048), "resized"), ((2000, 20), (2000, 286), "padded")],
)
def test_standardise_image_has_the_computed_standard_size(
    size: tuple[int, int], result: tuple[int, int], verdict: str
) -> None:
    image = standardise_image(file_of(Image.new("RGB", size, "red")))
    assert image.size == result == compute_standard_size(*size).canvas
    assert compute_standard_size(*size).action == verdict
    assert image.getpixel((result[0] // 2, result[1] // 2)) == (255, 0, 0)
    assert (image.getpixel((0, 0)) == (255, 255, 255)) == (verdict == "padded")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_encode_image_is_deterministic_and_drops_metadata(format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    tagged = Image.open(io.BytesIO(file_of(scene(), "JPEG", exif=exif)))
    first, second = encode_image(tagged, format), encode_image(tagged.copy(), format)  # type: ignore[arg-type]
    assert first == second
    assert b"a secret" not in first
    assert Image.open(io.BytesIO(first)).format == format


def test_thumbnail_is_a_small_jpeg() -> None:
    data = build_thumbnail(file_of(scene(3000, 1000), "JPEG"))
    assert Image.open(io.BytesIO(data)).size == (96, 32)
    assert len(data) < 6_000


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}], ids=str)
def test_reduced_decode_of_a_jpeg_rejects_what_a_full_decode_rejects(options: dict[str, object]) -> None:
    whole = file_of(scene(320, 200), "JPEG", **options)
    for seed in range(120):
        rng = np.random.default_rng(seed)
        data = bytearray(whole[: rng.integers(len(whole))] if seed % 2 else whole)
        data[rng.integers(max(1, len(data)))] = rng.integers(256)
        try:
            Image.open(io.BytesIO(bytes(data)), formats=["JPEG"]).load()
        except Exception:
            with pytest.raises(ImageError):
                inspect_image(bytes(data))
        else:
            assert inspect_image(bytes(data)).format in ("JPEG", "MPO")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(640, 480), (301, 300), (70, 900)])
def test_size_is_that_after_the_exif_rotation(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(scene(*size), "JPEG", exif=exif)
    assert (inspect_image(data).width, inspect_image(data).height) == upright_size(data)


def upright_size(data: bytes) -> tuple[int, int]:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size


def test_jpeg_with_too_many_scans_is_rejected_undecoded() -> None:
    jpeg = file_of(Image.new("L", (4096, 4096)), "JPEG", progressive=True)
    again = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert inspect_image(jpeg[:-2] + 20 * again + jpeg[-2:]).width == 4096
    assert error_of(jpeg[:-2] + 200 * again + jpeg[-2:]) == "too_many_scans"


def test_impossible_frame_count_is_rejected() -> None:
    png = file_of(scene())
    chunk = b"acTL" + struct.pack(">II", 0x7FFFFFFF, 0)
    claim = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert error_of(png[:33] + claim + png[33:]) == "broken_image"
