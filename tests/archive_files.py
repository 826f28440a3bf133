"""Archives in bytes, and what a row that names a member of one gets."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import resolve_image

GOOD = b"a good picture" * 40
EVIL = b"an evil picture"
PAIR = (("evil.png", EVIL), ("good.png", GOOD))


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
    return resolve_image(root, name).read()


def refusal(root: Path, name: str) -> tuple[str, str]:
    """(error class, message) with which a row that names `name` is refused."""
    with pytest.raises(RejectError) as raised:
        resolve_image(root, name)
    return raised.value.code, raised.value.message
