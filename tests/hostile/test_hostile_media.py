"""Pictures, films and archives from strangers: bad ones cost their row, odd ones are taken in as what they are."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mvl_assets.fetch.errors import FetchError
from mvl_assets.fetch.source import fetch_source
from mvl_assets.fetch.transfer import RetryPolicy
from tests.hostile.ground import MEMORY, Taken, link, take_in
from tests.raw_files import make_image, put, put_json, source, talk

Make = Callable[[], bytes]


def scene(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([4 * x, 5 * y, x + y], axis=-1).astype(np.uint8))


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(99))) + png_chunk(b"IEND", b"")


def many_frames_claimed() -> bytes:
    png = file_of(scene(), "PNG")
    return png[:33] + png_chunk(b"acTL", struct.pack(">II", 0x7FFFFFFF, 0)) + png[33:]


def many_scans() -> bytes:
    """A small file that makes the decoder go over 16 megapixels two hundred times."""
    jpeg = file_of(Image.new("L", (4096, 4096)), "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 200 + jpeg[-2:]


def jpeg_of(width: int, height: int) -> bytes:
    jpeg = bytearray(file_of(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def gif_of(width: int, height: int) -> bytes:
    gif = bytearray(file_of(scene().convert("P"), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    return bytes(gif)


def verified(data: bytes) -> bytes:
    """The same bytes, which Pillow's `verify()` finds nothing wrong with."""
    Image.open(io.BytesIO(data)).verify()
    return data


BAD_IMAGES: dict[str, tuple[Make, str]] = {
    "400_megapixels.png": (lambda: png_of(20_000, 20_000), "too_many_pixels"),
    "400_megapixels.jpg": (lambda: jpeg_of(20_000, 20_000), "too_many_pixels"),
    "4_gigapixels.gif": (lambda: gif_of(65_535, 65_535), "too_many_pixels"),
    "no_width.png": (lambda: png_of(0, 10), "not_an_image"),
    "no_height.jpg": (lambda: jpeg_of(10, 0), "not_an_image"),
    "truncated.jpg": (lambda: verified(file_of(scene(), "JPEG")[:-200]), "truncated_image"),
    "truncated.png": (lambda: file_of(scene(), "PNG")[:-60], "truncated_image"),
    "truncated.webp": (lambda: file_of(scene(), "WEBP")[:-60], "broken_image"),
    "truncated.gif": (lambda: file_of(scene().convert("P"), "GIF")[:-60], "truncated_image"),
    "truncated.tiff": (lambda: file_of(scene(), "TIFF")[:-600], "truncated_image"),
    "only_a_head.jpg": (lambda: file_of(scene(), "JPEG")[:20], "not_an_image"),
    "wrong_sum.png": (lambda: file_of(scene(), "PNG").replace(b"IDAT", b"IDAT\1", 1), "broken_image"),
    "two_billion_frames.png": (many_frames_claimed, "broken_image"),
    "hundreds_of_scans.jpg": (many_scans, "too_many_scans"),
    "drawing.svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', "svg_image"),
    "drawing.png": (lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b">]><svg/>', "svg_image"),
    "postscript.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n", "not_an_image"),
    "page.jpg": (lambda: b"<html><body>403 Forbidden</body></html>", "html_page"),
    "paper.png": (lambda: b"%PDF-1.7\n" + bytes(900), "not_an_image"),
    "icon.ico": (lambda: file_of(scene(), "ICO"), "not_an_image"),
    "empty.png": (lambda: b"", "not_an_image"),
    "zeros.png": (lambda: bytes(5000), "not_an_image"),
}

GOOD_IMAGES: dict[str, tuple[Make, dict[str, object]]] = {
    # name: (bytes, what the lake says of it; `width` and `height` are 64 and 48 where nothing else is said)
    "wrong_ending.png": (lambda: file_of(scene(), "JPEG"), {"format": "JPEG", "mode": "RGB", "n_frames": 1}),
    "animated.gif": (
        lambda: file_of(scene().convert("P"), "GIF", save_all=True, append_images=[scene().rotate(90).convert("P")]),
        {"format": "GIF", "n_frames": 2},
    ),
    "animated.webp": (
        lambda: file_of(scene(), "WEBP", save_all=True, append_images=[scene().rotate(90)] * 2),
        {"format": "WEBP", "n_frames": 2},
    ),
    "animated.png": (
        lambda: file_of(scene(), "PNG", save_all=True, append_images=[scene().rotate(180)]),
        {"format": "PNG", "n_frames": 2},
    ),
    "pages.tiff": (
        lambda: file_of(scene(), "TIFF", save_all=True, append_images=[scene(200, 100), scene(30, 300)]),
        {"format": "TIFF", "n_frames": 3},
    ),
    "print.jpg": (lambda: file_of(scene().convert("CMYK"), "JPEG"), {"format": "JPEG", "mode": "CMYK"}),
    "print.tiff": (lambda: file_of(scene().convert("CMYK"), "TIFF"), {"format": "TIFF", "mode": "CMYK"}),
    "depth.png": (
        lambda: file_of(Image.fromarray(np.full((48, 64), 40_000, np.uint16)), "PNG"),
        {"format": "PNG", "mode": "I;16"},
    ),
    "floats.tiff": (lambda: file_of(scene().convert("L").convert("F"), "TIFF"), {"format": "TIFF", "mode": "F"}),
    "palette.png": (lambda: file_of(scene().convert("P"), "PNG", transparency=0), {"format": "PNG", "mode": "P"}),
    "bits.png": (lambda: file_of(scene().convert("1"), "PNG"), {"format": "PNG", "mode": "1"}),
    "turned.jpg": (
        lambda: file_of(scene(48, 64), "JPEG", exif=turned_right()),
        {"format": "JPEG", "width": 64, "height": 48},
    ),
    "strip.png": (lambda: file_of(Image.new("RGB", (20_000, 2)), "PNG"), {"width": 20_000, "height": 2}),
    "point.png": (lambda: file_of(Image.new("RGB", (1, 1)), "PNG"), {"width": 1, "height": 1}),
}


def turned_right() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def image_ground(root: Path) -> None:
    names = [*BAD_IMAGES, *GOOD_IMAGES]
    for name, (make, _) in {**BAD_IMAGES, **GOOD_IMAGES}.items():
        put(root, name, make())
    # A file with a hole: 200 MB that take no room on the disk.
    put(root, "huge.png", b"\x89PNG\r\n\x1a\n")
    with (root / "huge.png").open("r+b") as file:
        file.truncate(200 << 20)
    rows = [{"id": name, "image": name, "conversations": talk("?", "!")} for name in [*names, "huge.png"]]
    both = {"id": "both", "image": ["wrong_ending.png", "truncated.jpg"], "conversations": talk("?", "!")}
    put_json(root, "rows.json", [*rows, both])


# Archives: some of those in `tests/readers/archives/test_hostile_archives.py`, the whole way into the lake

FINE = make_image(1, (16, 16))


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link_to: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for member in ("fine.png", name):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = (kind, link_to) if member == name else (tarfile.REGTYPE, "")
            info.size = len(FINE) if info.isreg() else 0
            target.addfile(info, io.BytesIO(FINE))
    return buffer.getvalue()


def zip_with(name: str | zipfile.ZipInfo, data: bytes = FINE) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("fine.png", FINE)
        target.writestr(name, data)
    return buffer.getvalue()


def zip_link() -> bytes:
    info = zipfile.ZipInfo("evil.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return zip_with(info, b"../../secret.png")


def patched(data: bytes, at_central: int, value: int, width: int) -> bytes:
    """The zip with a field of the last member's record in its directory changed."""
    result = data.rindex(b"PK\1\2")
    changed = bytearray(data)
    changed[result + at_central : result + at_central + width] = value.to_bytes(width, "little")
    return bytes(changed)


def tar_cut() -> bytes:
    return tar_with("evil.png")[: 512 * 3 + 40]


ARCHIVES: dict[str, tuple[str, Make, str]] = {
    "tar_parent": ("x.tar", lambda: tar_with("../evil.png"), "unsafe_member"),
    "tar_absolute": ("x.tar", lambda: tar_with("/evil.png"), "unsafe_member"),
    "tar_link": ("x.tar", lambda: tar_with("evil.png", tarfile.SYMTYPE, "../../secret.png"), "unsafe_member"),
    "tar_hard_link": ("x.tar", lambda: tar_with("evil.png", tarfile.LNKTYPE, "../../secret.png"), "unsafe_member"),
    "tar_device": ("x.tar", lambda: tar_with("evil.png", tarfile.CHRTYPE), "unsafe_member"),
    "tar_pipe": ("x.tar", lambda: tar_with("evil.png", tarfile.FIFOTYPE), "unsafe_member"),
    "tar_cut": ("x.tar", tar_cut, "broken_archive"),
    "zip_parent": ("x.zip", lambda: zip_with("../../evil.png"), "unsafe_member"),
    "zip_drive": ("x.zip", lambda: zip_with("C:\\evil.png"), "unsafe_member"),
    "zip_link": ("x.zip", zip_link, "unsafe_member"),
    "zip_bomb": ("x.zip", lambda: patched(zip_with("evil.png", bytes(9000)), 24, 1 << 30, 4), "archive_bomb"),
    "zip_encrypted": ("x.zip", lambda: patched(zip_with("evil.png"), 8, 1, 2), "encrypted_member"),
    "zip_wrong_sum": ("x.zip", lambda: patched(zip_with("evil.png"), 16, 7, 4), "unreadable_image"),
    "zip_larger_than_said": (
        "x.zip",
        lambda: patched(zip_with("evil.png", bytes(90_000)), 24, 9, 4),
        "unreadable_image",
    ),
    "zip_cut": ("y.zip", lambda: zip_with("evil.png")[:-30], "broken_archive"),
}


def archive_ground(root: Path) -> None:
    rows = []
    for name, (file, make, _) in ARCHIVES.items():
        put(root, f"{name}/{file}", make())
        rows += [
            {"id": f"{name} {member}", "image": f"{name}/{member}.png", "conversations": talk("?", "!")}
            for member in ("evil", "fine")
        ]
    put_json(root, "rows.json", rows)


# Films


def make_video(
    size: tuple[int, int] = (64, 48), frames: int = 8, seconds_apart: float = 0.25, format: str = "mp4"
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = size
        stream.codec_context.time_base = Fraction(1, 4)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), number, np.uint8), format="rgb24")
            frame.pts = round(number * seconds_apart * 4)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    return buffer.getvalue()


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
BAD_VIDEOS: dict[str, tuple[Make, str]] = {
    "cut.mp4": (lambda: make_video()[:-900], "truncated_video"),
    "half.mkv": (lambda: half(make_video(frames=48, format="matroska")), "truncated_video"),
    "no_frames.mkv": (lambda: make_video(format="matroska").partition(b"\x1f\x43\xb6\x75")[0], "broken_video"),
    "text.mp4": (lambda: b"This is a film.\n" * 400, "not_a_video"),
    "text.txt": (lambda: b"This is a film.\n" * 400, "not_a_video"),
    "empty.mp4": (lambda: b"", "not_a_video"),
    "zeros.mp4": (lambda: bytes(9000), "not_a_video"),
    "sound.wav": (sound, "no_video_stream"),
    "list_of_files.mp4": (lambda: b"ffconcat version 1.0\nfile 'fine.mp4'\n", "not_a_video"),
    "list_of_files_outside.mp4": (lambda: b"ffconcat version 1.0\nfile '../up.mp4'\n", "not_a_video"),
    "playlist_outside.m3u8": (lambda: PLAYLIST.format("../up.ts").encode(), "not_a_video"),
    "playlist_of_the_network.m3u8": (lambda: PLAYLIST.format("http://127.0.0.1:9/x.ts").encode(), "not_a_video"),
    "description.sdp": (
        lambda: b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "not_a_video",
    ),
}
GOOD_VIDEOS: dict[str, tuple[Make, int]] = {
    # name: (bytes, frames taken)
    "fine.mp4": (make_video, 2),
    "eight_k.mp4": (lambda: make_video((7680, 4320), 1), 1),
    "five_hours.mp4": (lambda: make_video(frames=60, seconds_apart=300.0), 32),
}


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def video_ground(root: Path) -> None:
    put(root.parent, "up.mp4", make_video())
    put(root.parent, "up.ts", make_video(format="mpegts"))
    for name, (make, _) in {**BAD_VIDEOS, **GOOD_VIDEOS}.items():
        put(root, name, make())
    (root / "empty_folder").mkdir()
    link(root, "frames/0.jpg", "../../fine.png")
    link(root, "link.mp4", "../up.mp4")
    names = [*BAD_VIDEOS, *GOOD_VIDEOS, *OTHER_VIDEOS]
    put_json(root, "rows.json", [{"id": name, "video": name, "conversations": talk("?", "!")} for name in names])


OTHER_VIDEOS = {
    "../up.mp4": "outside_root",
    "link.mp4": "outside_root",
    "frames": "missing_video",
    "empty_folder": "missing_video",
    "gone.mp4": "missing_video",
    "http://127.0.0.1:9/x.mp4": "missing_video",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return take_in(source("llava_json"), tmp_path_factory.mktemp("pictures"), image_ground)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return take_in(source("llava_json"), tmp_path_factory.mktemp("archives"), archive_ground)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return take_in(source("llava_video"), tmp_path_factory.mktemp("films"), video_ground)


@pytest.mark.parametrize("ground", ["pictures", "archives", "films"])
def test_memory_is_bounded(ground: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(ground).grown < MEMORY


@pytest.mark.parametrize("place", range(len(BAD_IMAGES)), ids=list(BAD_IMAGES))
def test_a_bad_image_rejects_its_row(pictures: Taken, place: int) -> None:
    name, (_, error) = list(BAD_IMAGES.items())[place]
    result, message = pictures.reject("rows.json", place)
    assert result == error and message.startswith(f"{name}: ")


@pytest.mark.parametrize("place", range(len(GOOD_IMAGES)), ids=list(GOOD_IMAGES))
def test_an_unusual_image_is_ingested_in_its_real_format(pictures: Taken, place: int) -> None:
    _, told = list(GOOD_IMAGES.values())[place]
    (image_id,) = pictures.samples["rows.json", len(BAD_IMAGES) + place]["image_ids"]
    image = pictures.images[image_id]
    assert {key: image[key] for key in {"width": 64, "height": 48, **told}} == {"width": 64, "height": 48, **told}


def test_a_file_above_the_bound_is_not_read_and_one_bad_image_of_two_rejects_the_row(pictures: Taken) -> None:
    behind = len(BAD_IMAGES) + len(GOOD_IMAGES)
    assert pictures.reject("rows.json", behind)[0] == "image_too_large"
    assert pictures.reject("rows.json", behind + 1) == (
        "truncated_image",
        pictures.reject("rows.json", behind + 1)[1],
    )
    assert len(pictures.rejects) == len(BAD_IMAGES) + 2
    assert len(pictures.samples) == len(pictures.images) == len(GOOD_IMAGES)


@pytest.mark.parametrize("place", range(len(ARCHIVES)), ids=list(ARCHIVES))
def test_a_hostile_member_rejects_its_row_and_its_neighbour_is_ingested(archives: Taken, place: int) -> None:
    name, (file, _, error) = list(ARCHIVES.items())[place]
    result, message = archives.reject("rows.json", 2 * place)
    assert result == error and f"{name}/{file}" in message
    if file == "x.tar" or file == "x.zip":
        assert ("rows.json", 2 * place + 1) in archives.samples


def test_nothing_from_an_archive_is_written_next_to_it(archives: Taken) -> None:
    assert set(archives.images) == {sample["image_ids"][0] for sample in archives.samples.values()}
    assert len(archives.images) == 1


@pytest.mark.parametrize("place", range(len(BAD_VIDEOS)), ids=list(BAD_VIDEOS))
def test_a_bad_video_rejects_its_row(films: Taken, place: int) -> None:
    name, (_, error) = list(BAD_VIDEOS.items())[place]
    result, message = films.reject("rows.json", place)
    assert result == error and message.startswith(f"{name}: ")


@pytest.mark.parametrize("place", range(len(GOOD_VIDEOS)), ids=list(GOOD_VIDEOS))
def test_a_long_or_large_video_is_ingested(films: Taken, place: int) -> None:
    _, frames = list(GOOD_VIDEOS.values())[place]
    assert len(films.samples["rows.json", len(BAD_VIDEOS) + place]["image_ids"]) == frames


@pytest.mark.parametrize("place", range(len(OTHER_VIDEOS)), ids=list(OTHER_VIDEOS))
def test_a_missing_video_rejects_its_row(films: Taken, place: int) -> None:
    error = list(OTHER_VIDEOS.values())[place]
    assert films.reject("rows.json", len(BAD_VIDEOS) + len(GOOD_VIDEOS) + place)[0] == error


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:6379/rows.json",
        "http://[::1]/rows.json",
        "http://[::ffff:10.0.0.1]/rows.json",
        "http://192.168.1.1/rows.json",
        "http://0.0.0.0/rows.json",
        "ftp://example.org/rows.json",
    ],
)
def test_a_source_in_the_local_network_is_not_fetched(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    monkeypatch.delenv("MVL_ALLOW_PRIVATE_FETCH", raising=False)
    with pytest.raises(
        FetchError, match=r"demo.*(not an address of the public internet|is not an http or https URL)"
    ) as raised:
        fetch_source(source("llava_json", url=url), retry_policy=RetryPolicy(max_attempts=1, backoff_base_s=0.0))
    assert raised.value.hint
    assert not list(tmp_path.rglob("rows.json"))
