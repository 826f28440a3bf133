"""What is hostile or broken in an archive costs the rows that name it, and no more."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mvl_assets.errors import InfrastructureError
from mvl_assets.readers.archives import entry, unpack
from mvl_assets.readers.archives import tar as tars
from mvl_assets.readers.archives import zip as zips
from mvl_assets.readers.archives.parts import list_archives
from mvl_assets.readers.files import resolve_image
from tests.archive_files import EVIL, GOOD, PAIR, read, refusal, special, tar, zipped
from tests.raw_files import put


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
    result = data.rindex(name) - 46
    assert data[result : result + 4] == b"PK\1\2"
    changed = bytearray(data)
    changed[result + at_central : result + at_central + width] = value.to_bytes(width, "little")
    return bytes(changed)


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def repeated() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(("evil.png", EVIL), ("good.png", GOOD), ("evil.png", GOOD))


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "tar_absolute": ("x.tar", lambda: tar(("/evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_dotdot": ("x.tar", lambda: tar(("../../evil.png", EVIL), ("good.png", GOOD)), "unsafe_member"),
    "tar_dotdot_inside": ("x.tar", lambda: tar(("a/../evil.png", EVIL), ("good.png", GOOD)), "missing_image"),
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
    "tar_pax_no_space": (
        "x.tar",
        lambda: tar(("good.png", GOOD))[:1536] + pax(b"7 a=b\n\n" + b"x" * 99),
        "broken_archive",
    ),
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
def test_a_hostile_archive_rejects_only_the_row_of_the_hostile_member(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "BOMB_MIN_BYTES", 1_000_000)
    outside, root = tmp_path / "outside", tmp_path / "outside" / "root"
    put(outside, "secret", b"secret")
    file, make, expected = HOSTILE[case]
    put(root, file, make())
    put(root, "fine.tar", tar(("images/fine.png", GOOD)))
    error, message = refusal(root, "evil.png")
    assert error == expected
    if expected != "missing_image":
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
def test_members_beyond_the_bound_are_ignored(
    tmp_path: Path, file: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_MEMBERS", 1)
    monkeypatch.setattr(zips, "MAX_MEMBERS", 1)
    put(tmp_path, file, data)
    assert read(tmp_path, "evil.png") == EVIL
    error, message = refusal(tmp_path, "good.png")
    assert error == "broken_archive" and "more than 1 members" in message


def test_a_bomb_of_a_tar_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "BOMB_MIN_BYTES", 1_000_000)
    put(tmp_path, "x.tar.gz", gzip.compress(tar(("good.png", bytes(60_000_000)))))
    assert refusal(tmp_path, "good.png")[0] == "archive_bomb"
    assert sum(p.stat().st_size for p in (tmp_path / ".unpacked").iterdir()) < 100_000


def test_a_full_disk_is_an_error_and_not_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "x.tar.gz", gzip.compress(tar(*PAIR)))
    monkeypatch.setattr(unpack, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(InfrastructureError, match="too full"):
        resolve_image(tmp_path, "good.png")
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
    assert list_archives(tmp_path) == ()
