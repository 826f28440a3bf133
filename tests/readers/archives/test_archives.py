"""Members of archives come out as they went in, and are found where published archives hold them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from mvl_assets.readers.files import ArchivedVideo, resolve_video
from tests.archive_files import EVIL, GOOD, read, refusal, tar, zipped
from tests.raw_files import put


@pytest.mark.parametrize(
    ("file", "pack"),
    [
        ("images.tar", bytes),
        ("images.tar.gz", gzip.compress),
        ("images.tgz", gzip.compress),
        ("images.tar.bz2", bz2.compress),
        ("images.tar.xz", lzma.compress),
    ],
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_gives_its_files(tmp_path: Path, file: str, pack: Callable[[bytes], bytes], format: int) -> None:
    put(tmp_path, file, pack(tar(("images/a.png", GOOD), ("./images/sub/b.png", EVIL), format=format)))
    assert read(tmp_path, "a.png") == GOOD
    assert read(tmp_path, "images/sub/b.png") == EVIL
    assert refusal(tmp_path, "c.png")[0] == "missing_image"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_gives_its_files(tmp_path: Path, method: int) -> None:
    put(tmp_path, "images.zip", zipped(("images/", b""), ("images/a.png", GOOD), ("images/b.png", b""), method=method))
    assert read(tmp_path, "a.png") == GOOD
    assert read(tmp_path, "b.png") == b""


NAMES = st.lists(st.text("abc.é字 -", min_size=1, max_size=60).filter(lambda n: n.strip(". ")), min_size=1, max_size=5)
MEMBERS = st.dictionaries(NAMES.map("/".join), st.binary(max_size=2000), max_size=12)


@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=30, deadline=None)
def test_any_tar_is_walked_as_tarfile_walks_it(members: dict[str, bytes], format: int) -> None:
    data = tar(*members.items(), format=format)
    result = {e.name: data[e.offset : e.offset + e.size] for e in tars.iter_entries(io.BytesIO(data), len(data))}
    assert result == {"/".join(p for p in name.split("/") if p not in ("", ".")): d for name, d in members.items()}


@given(MEMBERS, st.binary(max_size=40), st.binary(max_size=70))
@example({}, b"PK\x06\x07", b"")  # zipfile takes these bytes for a locator, and refuses the zip
@example({}, b"PK\x06\x07" + bytes(16), b"")  # likewise, and finds nothing where it points
@settings(max_examples=30, deadline=None)
def test_any_zip_is_walked_as_zipfile_walks_it(members: dict[str, bytes], before: bytes, comment: bytes) -> None:
    buffer = io.BytesIO(before)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.comment = comment.replace(b"PK", b"..")
        for name, member in members.items():
            target.writestr(name, member)
    data = buffer.getvalue()
    try:
        expected = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except zipfile.BadZipFile:
        reject()
    result = [(e.offset, e.compressed_size, e.size, e.crc) for e in zips.iter_entries(io.BytesIO(data), [0], len(data))]
    assert result == [(i.header_offset, i.compress_size, i.file_size, i.CRC) for i in expected]


def test_a_zip64_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for n in range(66_000):  # more members than the old directory can count
            target.writestr(zipfile.ZipInfo(f"i/{n}.png"), b"%d" % n)
    put(tmp_path, "i.zip", buffer.getvalue())
    assert (read(tmp_path, "i/0.png"), read(tmp_path, "i/65999.png")) == (b"0", b"65999")


@pytest.mark.parametrize(
    "names",
    [
        ["i.zip.001", "i.zip.002", "i.zip.003"],
        ["i.tar.gz.part-aa", "i.tar.gz.part-ab", "i.tar.gz.part-ac"],
        ["i.tar.aa", "i.tar.ab"],
        ["i.tar.part00", "i.tar.part01"],
        [f"i.tar.gz_part{n}" for n in range(1, 13)],
        ["i.tar"],
    ],
)
def test_parts_are_read_as_one(tmp_path: Path, names: list[str]) -> None:
    members = [(f"i/{n}.png", os.urandom(300)) for n in range(40)]
    whole = zipped(*members) if ".zip" in names[0] else tar(*members)
    whole = gzip.compress(whole) if ".gz" in names[0] else whole
    step = -(-len(whole) // len(names))
    for n, name in enumerate(names):
        put(tmp_path, name, whole[n * step : (n + 1) * step])
    for name, data in members:
        assert read(tmp_path, name) == data
    if len(names) > 2:
        (tmp_path / names[1]).unlink()
        error, message = refusal(tmp_path, "i/1.png")
        assert error == "broken_archive" and f"parts are not complete: {names[0]}" in message


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
def test_zips_own_parts_are_read_as_one(tmp_path: Path) -> None:
    files = tmp_path / "files"
    members = {f"dreamsim/{n}.png": os.urandom(9000) for n in range(30)}
    for name, data in members.items():
        put(files, name, data)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(
        ["zip", "-q", "-r", "-s", "64k", str(root / "dreamsim_split.zip"), "dreamsim"], cwd=files, check=True
    )
    assert {"dreamsim_split.z01", "dreamsim_split.z04", "dreamsim_split.zip"} <= {p.name for p in root.iterdir()}
    for name, data in members.items():
        assert read(root, name) == data
    (root / "dreamsim_split.z02").rename(tmp_path / "away")
    assert refusal(root, "dreamsim/1.png")[0] == "broken_archive"
    (tmp_path / "away").rename(root / "dreamsim_split.z02")
    (root / "dreamsim_split.zip").unlink()
    error, message = refusal(root, "dreamsim/1.png")
    assert error == "broken_archive" and "last part dreamsim_split.zip" in message


@pytest.mark.parametrize(
    ("archive", "member", "row"),
    [
        ("arxivqa.tar", "arxivqa/images/1.jpg", "arxivqa/images/1.jpg"),
        ("nlvr2.zip", "1.jpg", "nlvr2/1.jpg"),
        ("robut_wtq.tar", "robut_wtq/1.jpg", "hfdata/robut_wtq/1.jpg"),
        ("allava.tar.gz", "mnt/disks/data/allava/images/1.jpg", "allava/images/1.jpg"),
        ("allava_laion/image_chunks/images_9.zip", "1.jpg", "allava_laion/images/1.jpg"),
        ("allava_laion/image_chunks/images_9.zip", "images_9/1.jpg", "allava_laion/images/1.jpg"),
        ("0_30_s/0_30_s_videos_2.tar.gz", "academic/1.jpg", "0_30_s/academic/1.jpg"),
        ("coco/train2017.zip", "train2017/1.jpg", "coco/train2017/1.jpg"),
        ("images/shard_1.tar", "M4/HQ/1.jpg", "M4/HQ/1.jpg"),
        ("images_3.zip", "some/where/1.jpg", "images/1.jpg"),
    ],
)
def test_the_ways_in_which_archives_are_published_are_found(
    tmp_path: Path, archive: str, member: str, row: str
) -> None:
    data = zipped((member, GOOD)) if archive.endswith("zip") else tar((member, GOOD))
    put(tmp_path, archive, gzip.compress(data) if archive.endswith("gz") else data)
    assert read(tmp_path, row) == GOOD


def test_an_archive_that_no_folder_of_the_row_names_is_not_searched_for_a_like_name(tmp_path: Path) -> None:
    put(tmp_path, "a.zip", zipped(("a/images/1.png", EVIL)))
    assert refusal(tmp_path, "b/images/1.png")[0] == refusal(tmp_path, "1.png")[0] == "missing_image"


def test_the_archive_that_explains_most_of_a_path_is_the_one(tmp_path: Path) -> None:
    put(tmp_path, "images.zip", zipped(("images/1.png", EVIL)))
    assert read(tmp_path, "train/images/1.png") == EVIL  # the only one there is
    put(tmp_path, "z_shard.tar", tar(("train/images/1.png", b"the whole path")))
    assert read(tmp_path, "train/images/1.png") == b"the whole path"
    put(tmp_path, "train.zip", zipped(("images/1.png", GOOD)))
    assert read(tmp_path, "train/images/1.png") == GOOD


def test_a_broken_archive_is_named_only_when_it_may_hold_what_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "coco.tar", tar(("coco/1.png", GOOD)))
    put(tmp_path, "other.tar", b"?")
    assert refusal(tmp_path, "coco/2.png")[0] == "missing_image"
    assert refusal(tmp_path, "else/2.png")[0] == "broken_archive"


def test_a_file_goes_before_archives_and_an_archive_named_after_its_folder_before_others(tmp_path: Path) -> None:
    put(tmp_path, "coco.tar", tar(("coco/1.png", GOOD)))
    put(tmp_path, "a_first.tar", tar(("coco/1.png", EVIL)))
    assert read(tmp_path, "coco/1.png") == GOOD
    put(tmp_path, "coco/1.png", b"a file")
    assert read(tmp_path, "coco/1.png") == b"a file"


def test_a_changed_archive_is_read_again_and_its_old_unpacked_files_are_removed(tmp_path: Path) -> None:
    put(tmp_path, "i.tar.gz", gzip.compress(tar(("i/1.png", GOOD))))
    assert read(tmp_path, "i/1.png") == GOOD
    before = {p.name for p in (tmp_path / ".unpacked").iterdir()}
    put(tmp_path, "i.tar.gz", gzip.compress(tar(("i/0.png", b""), ("i/1.png", EVIL))))
    assert read(tmp_path, "i/1.png") == EVIL
    after = {p.name for p in (tmp_path / ".unpacked").iterdir()}
    assert before & after == {"lock"} and len(after) == 3


def test_an_index_is_made_once(tmp_path: Path) -> None:
    put(tmp_path, "i.tar", tar(("i/1.png", GOOD)))
    code = "import sys; from pathlib import Path; from mvl_assets.readers.files import resolve_image;"
    code += "resolve_image(Path(sys.argv[1]), 'i/1.png')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (index,) = (tmp_path / ".unpacked").glob("*.index")
    made = index.stat().st_mtime_ns
    assert read(tmp_path, "i/1.png") == GOOD
    assert index.stat().st_mtime_ns == made


def test_on_a_read_only_disk_plain_archives_are_read_and_compressed_tars_are_an_error(tmp_path: Path) -> None:
    (tmp_path / ".unpacked").write_bytes(b"in the way")
    put(tmp_path, "i.tar", tar(("i/1.png", GOOD)))
    put(tmp_path, "j.tar.gz", gzip.compress(tar(("j/1.png", GOOD))))
    assert read(tmp_path, "i/1.png") == GOOD
    assert refusal(tmp_path, "j/1.png")[0] == "broken_archive"


def test_nothing_is_written_beside_the_archives_where_unpacked_ones_have_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    monkeypatch.setenv("MVL_UNPACKED", str(tmp_path / "unpacked"))
    put(raw, "j.tar.gz", gzip.compress(tar(("j/1.png", GOOD))))
    assert read(raw, "j/1.png") == GOOD
    assert [path.name for path in raw.iterdir()] == ["j.tar.gz"]
    assert len(list((tmp_path / "unpacked").glob("raw-*/*.tar"))) == 1


def test_a_packed_video_is_a_stream_to_jump_about_in_and_a_folder_of_frames_is_one_video(tmp_path: Path) -> None:
    film = os.urandom(5000)
    put(tmp_path, "videos.tar", tar(("videos/a.mp4", film)))
    put(tmp_path, "more.zip", zipped(("videos/b.mp4", film)))
    put(tmp_path, "stored.zip", zipped(("videos/c.mp4", film), method=zipfile.ZIP_STORED))
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video = resolve_video(tmp_path, name, ("videos",))
        assert isinstance(video, ArchivedVideo)
        with video.open_file() as stream:
            assert not isinstance(stream, Path)
            stream.seek(-10, io.SEEK_END)
            assert (stream.tell(), stream.read()) == (4990, film[-10:])
            stream.seek(100)
            assert stream.read(50) == film[100:150]


def test_files_that_macos_adds_to_an_archive_are_ignored(tmp_path: Path) -> None:
    mac = [("__MACOSX/data/coco/._1.jpg", b"mac"), ("data/coco/._1.jpg", b"mac"), (".DS_Store", b"mac")]
    put(tmp_path, "coco.zip", zipped(("data/coco/1.jpg", b"one"), *mac))
    assert read(tmp_path, "coco/1.jpg") == b"one"


def test_a_member_whose_own_header_is_damaged_is_an_os_error(tmp_path: Path) -> None:
    whole = zipped(("v/1.mp4", b"x" * 100), ("v/2.mp4", b"y" * 100))
    second = whole.index(b"PK\3\4", 4)
    put(tmp_path, "v.zip", whole[:second] + b"PK\3\5" + whole[second + 4 :])
    video = resolve_video(tmp_path, "v/2.mp4", ("",))
    with pytest.raises(OSError, match="cannot be unpacked"), video.open_file():
        pass


def test_a_video_with_frames_beyond_the_damage_is_rejected_whole(tmp_path: Path) -> None:
    whole = tar(*((f"v_a/{n:02}.jpg", bytes([n]) * 600) for n in range(10)))
    put(tmp_path, "frames.tar", whole[: len(whole) // 2])
    with pytest.raises(RejectError, match="may not be whole") as caught:
        resolve_video(tmp_path, "v_a", ("",))
    assert caught.value.code == "broken_archive"
