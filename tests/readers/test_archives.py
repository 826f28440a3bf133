"""Members of archives come out as they went in; what is hostile or broken costs the rows that name it, and no more."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import put

from mvl_assets.errors import MachineError
from mvl_assets.readers.archives import entry, unpack
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from mvl_assets.readers.archives.parts import archives_in
from mvl_assets.readers.files import PackedVideo, picture_at, video_at
from mvl_assets.readers.rows import RowError

GOOD = b"a good picture" * 40
EVIL = b"an evil picture"


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as target:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                target.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                target.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, data in members:
            target.writestr(name, data)
    return buffer.getvalue()


def read(root: Path, name: str) -> bytes:
    return picture_at(root, name).read()


def refusal(root: Path, name: str) -> tuple[str, str]:
    """(error class, message) with which a row that names `name` is refused."""
    with pytest.raises(RowError) as raised:
        picture_at(root, name)
    return raised.value.error, raised.value.message


# What went in comes out


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
    assert refusal(tmp_path, "c.png")[0] == "missing_picture"


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
    found = {e.name: data[e.offset : e.offset + e.size] for e in tars.walk(io.BytesIO(data), len(data))}
    assert found == {"/".join(p for p in name.split("/") if p not in ("", ".")): d for name, d in members.items()}


@given(MEMBERS, st.binary(max_size=40), st.binary(max_size=70))
@settings(max_examples=30, deadline=None)
def test_any_zip_is_walked_as_zipfile_walks_it(members: dict[str, bytes], before: bytes, comment: bytes) -> None:
    buffer = io.BytesIO(before)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.comment = comment.replace(b"PK", b"..")
        for name, member in members.items():
            target.writestr(name, member)
    data = buffer.getvalue()
    found = [(e.offset, e.stored, e.size, e.crc) for e in zips.walk(io.BytesIO(data), [0], len(data))]
    expected = zipfile.ZipFile(io.BytesIO(data)).infolist()
    assert found == [(i.header_offset, i.compress_size, i.file_size, i.CRC) for i in expected]


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
    assert refusal(tmp_path, "b/images/1.png")[0] == refusal(tmp_path, "1.png")[0] == "missing_picture"


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
    assert refusal(tmp_path, "coco/2.png")[0] == "missing_picture"
    assert refusal(tmp_path, "else/2.png")[0] == "broken_archive"


def test_a_file_goes_before_archives_and_an_archive_named_after_its_folder_before_others(tmp_path: Path) -> None:
    put(tmp_path, "coco.tar", tar(("coco/1.png", GOOD)))
    put(tmp_path, "a_first.tar", tar(("coco/1.png", EVIL)))
    assert read(tmp_path, "coco/1.png") == GOOD
    put(tmp_path, "coco/1.png", b"a file")
    assert read(tmp_path, "coco/1.png") == b"a file"


def test_a_changed_archive_is_read_anew_and_what_was_made_of_the_old_one_goes(tmp_path: Path) -> None:
    put(tmp_path, "i.tar.gz", gzip.compress(tar(("i/1.png", GOOD))))
    assert read(tmp_path, "i/1.png") == GOOD
    before = {p.name for p in (tmp_path / ".unpacked").iterdir()}
    put(tmp_path, "i.tar.gz", gzip.compress(tar(("i/0.png", b""), ("i/1.png", EVIL))))
    assert read(tmp_path, "i/1.png") == EVIL
    after = {p.name for p in (tmp_path / ".unpacked").iterdir()}
    assert before & after == {"lock"} and len(after) == 3


def test_an_index_is_made_once(tmp_path: Path) -> None:
    put(tmp_path, "i.tar", tar(("i/1.png", GOOD)))
    code = "import sys; from pathlib import Path; from mvl_assets.readers.files import picture_at;"
    code += "picture_at(Path(sys.argv[1]), 'i/1.png')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (index,) = (tmp_path / ".unpacked").glob("*.index")
    made = index.stat().st_mtime_ns
    assert read(tmp_path, "i/1.png") == GOOD
    assert index.stat().st_mtime_ns == made


def test_where_nothing_can_be_written_plain_archives_are_read_and_compressed_tars_say_why_not(tmp_path: Path) -> None:
    (tmp_path / ".unpacked").write_bytes(b"in the way")
    put(tmp_path, "i.tar", tar(("i/1.png", GOOD)))
    put(tmp_path, "j.tar.gz", gzip.compress(tar(("j/1.png", GOOD))))
    assert read(tmp_path, "i/1.png") == GOOD
    assert refusal(tmp_path, "j/1.png")[0] == "broken_archive"


def test_a_packed_video_is_a_stream_to_jump_about_in_and_a_folder_of_frames_is_one_video(tmp_path: Path) -> None:
    film = os.urandom(5000)
    put(tmp_path, "videos.tar", tar(("videos/a.mp4", film)))
    put(tmp_path, "more.zip", zipped(("videos/b.mp4", film)))
    put(tmp_path, "stored.zip", zipped(("videos/c.mp4", film), method=zipfile.ZIP_STORED))
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video = video_at(tmp_path, name, ("videos",))
        assert isinstance(video, PackedVideo)
        with video.opened() as stream:
            assert not isinstance(stream, Path)
            stream.seek(-10, io.SEEK_END)
            assert (stream.tell(), stream.read()) == (4990, film[-10:])
            stream.seek(100)
            assert stream.read(50) == film[100:150]


# What is hostile or broken


def sparse_of_gnu() -> bytes:
    info = tarfile.TarInfo("evil.png")
    info.size = len(EVIL)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" + b"00000000017\0"
    header[482] = 1  # one more block of the map follows
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(512) + EVIL.ljust(512, b"\0") + tar(("good.png", GOOD))


def sparse_of_pax() -> bytes:
    info = tarfile.TarInfo("GNUSparseFile.0/evil.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "evil.png"}
    return tar(info, ("good.png", GOOD))


def with_flag(data: bytes, name: bytes, at_central: int, value: int, width: int = 2) -> bytes:
    """The zip with a field of the member's record in the directory changed."""
    found = data.rindex(name) - 46
    assert data[found : found + 4] == b"PK\1\2"
    changed = bytearray(data)
    changed[found + at_central : found + at_central + width] = value.to_bytes(width, "little")
    return bytes(changed)


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def repeated() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(("evil.png", EVIL), ("good.png", GOOD), ("evil.png", GOOD))


PAIR = (("evil.png", EVIL), ("good.png", GOOD))
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "tar_absolute": ("x.tar", lambda: tar(("/evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_dotdot": ("x.tar", lambda: tar(("../../evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_dotdot_inside": ("x.tar", lambda: tar(("a/../evil.png", EVIL), ("good.png", GOOD)), "missing_picture"),
    "tar_drive": ("x.tar", lambda: tar(("C:/evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_backslashes": ("x.tar", lambda: tar(("..\\evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_symlink": (
        "x.tar",
        lambda: tar(special("evil.png", tarfile.SYMTYPE, "/etc/passwd"), ("good.png", GOOD)),
        "unsafe_member",
    ),
    "tar_hard_link": (
        "x.tar",
        lambda: tar(special("evil.png", tarfile.LNKTYPE, "../secret"), ("good.png", GOOD)),
        "unsafe_member",
    ),
    "tar_device": ("x.tar", lambda: tar(special("evil.png", tarfile.CHRTYPE), ("good.png", GOOD)), "unsafe_member"),
    "tar_disk": ("x.tar", lambda: tar(special("evil.png", tarfile.BLKTYPE), ("good.png", GOOD)), "unsafe_member"),
    "tar_pipe": ("x.tar", lambda: tar(special("evil.png", tarfile.FIFOTYPE), ("good.png", GOOD)), "unsafe_member"),
    "tar_sparse": ("x.tar", sparse_of_gnu, "unsafe_member"),
    "tar_sparse_pax": ("x.tar", sparse_of_pax, "unsafe_member"),
    "tar_twice": ("x.tar", lambda: tar(*PAIR, ("evil.png", GOOD)), "ambiguous_member"),
    "tar_twice_spelled": ("x.tar", lambda: tar(*PAIR, (".//evil.png", GOOD)), "ambiguous_member"),
    "tar_cut_in_data": ("x.tar", lambda: tar(("good.png", GOOD), ("evil.png", bytes(9000)))[:6000], "broken_archive"),
    "tar_cut_in_header": ("x.tar", lambda: tar(("good.png", GOOD), ("evil.png", EVIL))[:1800], "broken_archive"),
    "tar_damaged": (
        "x.tar",
        lambda: tar(("good.png", GOOD))[:1536] + b"\1" * 512 + tar(("evil.png", EVIL)),
        "broken_archive",
    ),
    "tar_no_end": ("x.tar", lambda: tar(("good.png", GOOD))[:1536], "broken_archive"),
    "tar_negative": (
        "x.tar",
        lambda: tar(("good.png", GOOD))[:1536] + negative_size(),
        "broken_archive",
    ),
    "tar_huge_header": ("x.tar", lambda: tar(("good.png", GOOD))[:1536] + huge_header(), "broken_archive"),
    "tar_bad_pax": ("x.tar", lambda: tar(("good.png", GOOD))[:1536] + pax(b"99 path=evil.png\n"), "broken_archive"),
    "tar_pax_no_number": ("x.tar", lambda: tar(("good.png", GOOD))[:1536] + pax(b"-7 a=b\n"), "broken_archive"),
    "tar_pax_size": ("x.tar", lambda: tar(("good.png", GOOD))[:1536] + pax(b"13 size=1e99\n"), "broken_archive"),
    "gz_cut": ("x.tar.gz", lambda: cut(gzip.compress(many_and_evil())), "broken_archive"),
    "gz_of_text": ("y.tar.gz", lambda: gzip.compress(b"no tar" * 200), "broken_archive"),
    "bz2_cut": ("y.tar.bz2", lambda: bz2.compress(tar(*PAIR))[:-30], "broken_archive"),
    "text_as_tar": ("y.tar", lambda: b"this is no archive\n" * 60, "broken_archive"),
    "empty": ("y.zip", lambda: b"", "broken_archive"),
    "zip_absolute": ("x.zip", lambda: zipped(("/evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "zip_dotdot": ("x.zip", lambda: zipped(("../evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "zip_backslashes": ("x.zip", lambda: zipped(("..\\..\\evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "zip_link": ("x.zip", lambda: zipped((linked("evil.png"), b"/etc/passwd"), ("good.png", GOOD)), "unsafe_member"),
    "zip_encrypted": ("x.zip", lambda: with_flag(zipped(*PAIR[::-1]), b"evil.png", 8, 1), "encrypted_member"),
    "zip_method": ("x.zip", lambda: with_flag(zipped(*PAIR[::-1]), b"evil.png", 10, 99), "unsupported_member"),
    "zip_elsewhere": ("x.zip", lambda: with_flag(zipped(*PAIR[::-1]), b"evil.png", 42, 1 << 30, 4), "broken_archive"),
    "zip_twice": ("x.zip", repeated, "ambiguous_member"),
    "zip_cut": ("y.zip", lambda: zipped(*PAIR)[:-40], "broken_archive"),
    "zip_directory_elsewhere": (
        "y.zip",
        lambda: zipped(*PAIR)[:-10] + struct.pack("<LLH", 1 << 30, 5, 0),
        "broken_archive",
    ),
    "zip_directory_damaged": ("x.zip", lambda: zipped(*PAIR).replace(b"PK\1\2", b"PK\1\3"), "broken_archive"),
    "zip_bomb": ("x.zip", lambda: zipped(("evil.png", bytes(2_000_000)), ("good.png", GOOD)), "archive_bomb"),
}


def pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + tar(("evil.png", EVIL))


def huge_header() -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + tar(("evil.png", EVIL))


def negative_size() -> bytes:
    info = tarfile.TarInfo("evil.png")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + tar(("evil.png", EVIL))


def many_and_evil() -> bytes:
    return tar(("good.png", GOOD), ("filler", os.urandom(50_000)), ("evil.png", EVIL))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_costs_the_row_that_names_the_evil_member_and_no_more(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "BOMB_FLOOR", 1_000_000)
    outside, root = tmp_path / "outside", tmp_path / "outside" / "root"
    put(outside, "secret", b"secret")
    file, make, expected = HOSTILE[case]
    put(root, file, make())
    put(root, "fine.tar", tar(("images/fine.png", GOOD)))
    error, message = refusal(root, "evil.png")
    assert error == expected
    if expected != "missing_picture":
        assert file in message and "evil.png" in message
    if file.startswith("x") and case != "zip_directory_damaged":
        assert read(root, "good.png") == GOOD
    assert read(root, "fine.png") == GOOD
    assert {p.name for p in outside.iterdir()} == {"secret", "root"}
    allowed = {file, "fine.tar", ".unpacked"}
    assert {p.relative_to(root).parts[0] for p in root.rglob("*")} == allowed


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("x.zip", tar(*PAIR)),
        ("x.tar", zipped(*PAIR)),
        ("x.tar", gzip.compress(tar(*PAIR))),
        ("x.tar.gz", tar(*PAIR)),
        ("x.tgz", bz2.compress(tar(*PAIR))),
    ],
)
def test_an_archive_with_the_wrong_ending_is_read_by_what_it_is(tmp_path: Path, file: str, data: bytes) -> None:
    put(tmp_path, file, data)
    assert read(tmp_path, "good.png") == GOOD


def test_a_member_whose_sum_is_wrong_is_not_given(tmp_path: Path) -> None:
    put(tmp_path, "x.zip", with_flag(zipped(*PAIR), b"good.png", 16, 12345, 4))
    with pytest.raises(OSError, match=r"x\.zip: good\.png cannot be unpacked: Bad CRC"):
        read(tmp_path, "good.png")


def test_a_member_that_is_larger_than_it_says_is_not_unpacked_further(tmp_path: Path) -> None:
    put(tmp_path, "x.zip", with_flag(zipped(("good.png", bytes(9_000_000))), b"good.png", 24, 1000, 4))
    tracemalloc.start()
    with pytest.raises(OSError, match="Bad CRC"):
        read(tmp_path, "good.png")
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(("file", "data"), [("x.tar", tar(*PAIR)), ("x.zip", zipped(*PAIR))])
def test_members_beyond_the_bound_are_not_taken_in(
    tmp_path: Path, file: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_MEMBERS", 1)
    monkeypatch.setattr(zips, "MAX_MEMBERS", 1)
    put(tmp_path, file, data)
    assert read(tmp_path, "evil.png") == EVIL
    error, message = refusal(tmp_path, "good.png")
    assert error == "broken_archive" and "more than 1 members" in message


def test_a_bomb_of_a_tar_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "BOMB_FLOOR", 1_000_000)
    put(tmp_path, "x.tar.gz", gzip.compress(tar(("good.png", bytes(60_000_000)))))
    assert refusal(tmp_path, "good.png")[0] == "archive_bomb"
    assert sum(p.stat().st_size for p in (tmp_path / ".unpacked").iterdir()) < 100_000


def test_a_full_disk_is_no_fault_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "x.tar.gz", gzip.compress(tar(*PAIR)))
    monkeypatch.setattr(unpack, "KEEP_FREE", 1 << 60)
    with pytest.raises(MachineError, match="too full"):
        picture_at(tmp_path, "good.png")
    assert [p.name for p in (tmp_path / ".unpacked").iterdir()] == ["lock"]
    monkeypatch.undo()
    assert read(tmp_path, "good.png") == GOOD


def test_links_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(outside, "x.tar", tar(*PAIR))
    root.mkdir()
    (root / "x.tar").symlink_to(outside / "x.tar")
    error, message = refusal(root, "good.png")
    assert error == "broken_archive" and "link out of" in message
    shutil.rmtree(root / ".unpacked", ignore_errors=True)
    (root / ".unpacked").symlink_to(outside)
    put(root, "y.tar.gz", gzip.compress(tar(("y/1.png", GOOD))))
    assert refusal(root, "y/1.png")[0] == "broken_archive"
    assert [p.name for p in outside.iterdir()] == ["x.tar"]
    (root / ".unpacked").unlink()
    put(outside, "secret", b"secret")
    (root / ".unpacked").mkdir()
    (root / ".unpacked" / "lock").symlink_to(outside / "secret")
    assert refusal(root, "y/1.png")[0] == "broken_archive"
    assert (outside / "secret").read_bytes() == b"secret"


def test_what_only_looks_like_an_archive_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.tar.md5", "x.zip.crc32", "README.z", "a.gz", "i.json.gz", ".hidden.tar"):
        put(tmp_path, name, b"?")
    (tmp_path / "folder.zip").mkdir()
    assert archives_in(tmp_path) == ()


# Kills, and memory

KILLED = """
import os, signal, sys
from pathlib import Path
from mvl_assets.readers.archives import index, unpack
from mvl_assets.readers.files import picture_at

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

module, name, after = {"unpack": (unpack, "_make_sure_of_room", 2), "fill": (index, "_fill", 0),
                       "index": (index._Top, "add", 30), "sync": (index, "_sync", 2)}[sys.argv[2]]
calls, real = [], getattr(module, name)

def counted(*args):
    calls.append(1)
    return die() if len(calls) > after else real(*args)

setattr(module, name, counted)
unpack._ROOM_ASKED_EVERY = 1 << 20
picture_at(Path(sys.argv[1]), "i/1.png")
"""


@pytest.mark.parametrize("moment", ["unpack", "fill", "index", "sync"])
def test_a_kill_leaves_nothing_half_and_the_next_process_begins_anew(tmp_path: Path, moment: str) -> None:
    filler = [(f"i/f{n}", os.urandom(100_000)) for n in range(50)]
    put(tmp_path, "i.tar.gz", gzip.compress(tar(*filler, ("i/1.png", GOOD)), 1))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    made = {p.suffix for p in (tmp_path / ".unpacked").iterdir()}
    assert ".index" not in made
    if moment == "unpack":
        assert made == {"", ".tmp"}
    assert read(tmp_path, "i/1.png") == GOOD
    assert sorted(p.suffix for p in (tmp_path / ".unpacked").iterdir()) == ["", ".index", ".tar"]


def small_and_large() -> Iterator[tuple[str, Callable[[int], bytes]]]:
    def many(members: int) -> list[tuple[str, bytes]]:
        return [(f"i/{n:09d}.png", b"x") for n in range(members)]

    yield "i.tar", lambda n: tar(*many(n), format=tarfile.GNU_FORMAT)
    yield "i.zip", lambda n: zipped(*many(n), method=zipfile.ZIP_STORED)
    yield "i.tar.gz", lambda n: gzip.compress(tar(*many(n), format=tarfile.GNU_FORMAT), 1)


@pytest.mark.parametrize(("file", "make"), list(small_and_large()))
def test_memory_does_not_grow_with_the_archive(tmp_path: Path, file: str, make: Callable[[int], bytes]) -> None:
    peaks = []
    for members in (300, 6000):
        root = tmp_path / str(members)
        put(root, file, make(members))
        tracemalloc.start()
        assert read(root, "i/000000299.png") == b"x"
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


@pytest.mark.parametrize("kind", ["tar", "zip"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_members_or_an_archive_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(tar(*PAIR, special("l", tarfile.SYMTYPE, "x")) if kind == "tar" else zipped(*PAIR))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        stream = io.BytesIO(damaged)
        members = tars.walk(stream, len(damaged)) if kind == "tar" else zips.walk(stream, [0], len(damaged))
        for member in members:
            assert member.error is not None or 0 <= member.offset <= member.offset + member.stored <= len(damaged)
    except entry.ArchiveError:
        pass
