"""What is fuzzed: every parser of bytes that strangers wrote, with valid seeds and the outcomes it may have.

A seed is a small folder of files. A target reads the folder after one file was damaged; it may give results, rejects or
the errors that its docstrings name. Everything else that it raises is a finding, as are crashes and hangs.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import math
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from PIL import Image

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.config.catalog import RecordsMapping, SourceSpec, load_catalog, read_catalog
from mvl_assets.config.strict_yaml import iter_documents
from mvl_assets.demo_data.recipes import RECIPES
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.errors import MvlError
from mvl_assets.ingest.row_numbering import RowNumbering
from mvl_assets.media.image import ImageError, build_thumbnail, inspect_image, standardise_image
from mvl_assets.media.video import VideoError, sample_frames
from mvl_assets.readers.archives.find import find_member
from mvl_assets.readers.conversations.regions import format_box, parse_box, parse_size
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.format import RowKey
from mvl_assets.readers.parsers import delimited, json_stream, single_record_files
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, Item, RejectedItem
from mvl_assets.readers.parsers.plain_pickle import UnsafePickle, load
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from mvl_assets.readers.sniffing.propose import sniff_folder
from tests.archive_files import tar
from tests.raw_files import TABMWP, make_image, source, talk

Tree = dict[str, bytes]
_CLASS = re.compile(r"[a-z][a-z0-9_]{2,40}")


@dataclass(frozen=True, slots=True)
class Target:
    """One parser. `seeds` makes the valid folders, `run` reads one of them, `tokens` are words of its format."""

    seeds: Callable[[], list[Tree]]
    run: Callable[[Path], None]
    allowed: tuple[type[Exception], ...] = ()
    tokens: tuple[bytes, ...] = ()


# Parsers of one file


def _items(result: Iterable[Item | RejectedItem]) -> None:
    """Positions count from 0, bad items have a reason, and `broken_file` comes last."""
    ended = False
    for position, item in enumerate(result):
        assert item.position == position and not ended
        if isinstance(item, RejectedItem):
            assert _CLASS.fullmatch(item.error) and item.message
            ended = item.error == BROKEN_FILE


def _read_json(folder: Path) -> None:
    _items(json_stream.iter_elements(folder / "data"))
    _items(json_stream.iter_elements(folder / "data", ("a", "rows")))


def _json_seeds() -> list[Tree]:
    rows = [
        {"id": n, "image": f"é{n}.png", "conversations": talk("<image>\n\\frac{1}{2} ☃?", 'so "so"')} for n in range(4)
    ]
    texts = [
        json.dumps(rows),
        json.dumps(rows, ensure_ascii=False, indent=1),
        json.dumps({str(n): r for n, r in enumerate(rows)}),
    ]
    texts += [
        json.dumps({"info": {"x": [1, {"y": None}]}, "a": {"b": 1.5e3, "rows": rows}}),
        "[1, -2.5, true, null, [[]], {}]",
    ]
    return [{"data": text.encode()} for text in texts]


def _line_seeds() -> list[Tree]:
    return [{"data": b"\n".join(json.dumps(row).encode() for row in json.loads(t["data"]))} for t in _json_seeds()[:2]]


def _read_delimited(folder: Path) -> None:
    for delimiter in ",\t":
        _items(delimited.iter_rows(folder / "data", delimiter, ("a",)))


def _delimited_seeds() -> list[Tree]:
    text = 'a,b,c\r\n1,"two, ""2""\r\nlines",3\r\né,,"x"\n' + "p,q,r\n" * 20
    return [
        {"data": d}
        for d in (text.encode(), b"\xef\xbb\xbf" + text.replace(",", "\t").encode(), gzip.compress(text.encode()))
    ]


def _read_archive(folder: Path) -> None:
    """Members are found, then read in full; a `InfrastructureError` would be a fault too."""
    for name in ("a/0.png", "a/1.png", "deep/er/2.png", "late.png", "none.png"):
        member = find_member(folder, [name])
        if member is not None:
            try:
                assert len(member.read(64 << 20)) == member.entry.size
                with member.open_seekable() as stream:
                    stream.seek(10)
                    stream.read(100)
            except (ValueError, OSError):
                pass
    for made in (folder / ".unpacked").glob("*"):
        made.unlink()


def _members() -> list[tuple[str, bytes]]:
    names = ("a/0.png", "a/1.png", "deep/er/2.png", "ä" * 60 + ".png", "late.png")
    return [(name, make_image(n, (8, 8)) * 3) for n, name in enumerate(names)]


def _tars() -> list[bytes]:
    made = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as target:
            for name, data in _members():
                info = tarfile.TarInfo(name if format != tarfile.USTAR_FORMAT else name[-40:])
                info.size = len(data)
                target.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "a/0.png"
            target.addfile(link)
        made.append(buffer.getvalue())
    return made


def _zips() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as target:
            for name, data in _members():
                with target.open(name, "w", force_zip64=method == zipfile.ZIP_LZMA) as file:
                    file.write(data)
        made.append(buffer.getvalue())
    return made


def _read_pickle(folder: Path) -> None:
    load(folder / "data")


def _pickle_seeds() -> list[Tree]:
    refs = [
        {"ref_id": n, "sentences": [{"sent": "é", "raw": "x" * 300, "tokens": ["a"]}], "box": (1, 2.5, None, True)}
        for n in range(3)
    ]
    refs.append({"same": refs[0], "long": 1 << 40, "text": "☃" * 90, "t": ((), (1,), (1, 2), (1, 2, 3, 4))})
    return [{"data": pickle.dumps(refs, protocol)} for protocol in range(6)]


def _read_image(folder: Path) -> None:
    """What `inspect` lets pass, the others may not refuse."""
    data = (folder / "data").read_bytes()
    info = inspect_image(data)
    assert info.n_frames >= 1 and info.width * info.height > 0 and info.n_frames < 1 << 31
    assert max(standardise_image(data).size) <= 4096
    build_thumbnail(data)


def _image_seeds() -> list[Tree]:
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    more = [plain.rotate(90 * n) for n in range(1, 3)]
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (plain, "JPEG", {"exif": exif, "icc_profile": b"x" * 128}),
        (plain, "JPEG", {"progressive": True, "quality": 50}),
        (plain.convert("CMYK"), "JPEG", {}),
        (plain, "PNG", {"exif": exif, "dpi": (72, 72)}),
        (plain.convert("P"), "PNG", {"transparency": 3}),
        (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
        (plain, "PNG", {"save_all": True, "append_images": more}),
        (plain.convert("P"), "GIF", {"save_all": True, "append_images": more, "loop": 0}),
        (plain, "WEBP", {"save_all": True, "append_images": more}),
        (plain, "WEBP", {"lossless": True}),
        (plain, "BMP", {}),
        (plain.convert("P"), "BMP", {}),
        (plain, "PPM", {}),
        (plain.convert("F").convert("F"), "TIFF", {}),
        (plain.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        (plain, "TIFF", {"compression": "jpeg", "save_all": True, "append_images": more}),
        (plain.convert("1"), "TIFF", {"compression": "group4"}),
    ]
    seeds = []
    for image, format, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        seeds.append({"data": buffer.getvalue()})
    return [
        *seeds,
        {"data": b"P3\n2 2\n255\n0 0 0 9 9 9 1 2 3 255 255 255\n"},
        {"data": b"PF\n2 1\n-1.0\n" + bytes(24)},
    ]


def _read_video(folder: Path) -> None:
    path = folder / "data"
    ends = []
    for stream in (path, path.open("rb")):
        try:
            ends.append(len([seconds for seconds, _ in sample_frames(stream, max_frames=4)]))
        except VideoError as error:
            assert _CLASS.fullmatch(error.code) and error.message
            ends.append(-1)
    stream.close()  # type: ignore[union-attr]


def _video_seeds() -> list[Tree]:
    seeds = []
    for kind, codec in (
        ("mp4", "mpeg4"),
        ("mkv", "mpeg4"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("mov", "mjpeg"),
        ("mpegts", "mpeg2video"),
        ("gif", "gif"),
    ):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format={"mkv": "matroska"}.get(kind, kind)) as container:
            stream = container.add_stream(codec, rate=25 if codec == "mpeg2video" else 4)
            stream.width, stream.height = 32, 32
            stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
            for n in range(12):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * n, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        seeds.append({"data": buffer.getvalue()})
    return seeds


def _read_box(folder: Path) -> None:
    for item in json_stream.iter_lines(folder / "data.jsonl"):
        if isinstance(item, Item) and isinstance(item.value, dict):
            with contextlib.suppress(RejectError):
                assert len(format_box(parse_box(item.value.get("bbox")), parse_size(item.value))) < 60


def _read_yaml(folder: Path) -> None:
    for document in iter_documents(folder / "general" / "defs.yaml"):
        document.find_line(["attributes", "hub", "repo"])
    read_catalog(folder)


def _yaml_seeds() -> list[Tree]:
    text = (Path(__file__).parents[2] / "mvl_assets/defs/sources/general/defs.yaml").read_bytes()
    entries = text.split(b"\n---\n")
    fancy = (
        b"a: &a [1, 2.5, 2001-01-01, 0x1f, !!binary aGk=, ~, yes]\nb: {<<: {c: *a}, ? [d] : e}\nf: |\n  long\n  text\n"
    )
    return [{"general/defs.yaml": data} for data in (b"\n---\n".join(entries[:2]), entries[3], fancy)]


# Readers of whole sources, as ingest uses them


def _read_source(spec: SourceSpec) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        """Both passes give the same rows, and every row is one that the lake can take."""
        keys = list(get_key_reader(spec.format)(spec, folder))
        rows: list[RowKey] = []
        ends: dict[str, int] = {}
        numbering = RowNumbering(spec.slug)
        for row in get_reader(spec.format)(spec, folder):
            assert row.file.encode() and row.position >= 0
            if isinstance(row, RejectedRow):
                assert _CLASS.fullmatch(row.error) and row.message, row
            numbering.generate_ids([row])
            if isinstance(row, RejectedRow) and row.error == BROKEN_FILE:
                ends.setdefault(row.file, row.position)
            else:
                rows.append(RowKey(row.file, row.position, row.native_id))
            if isinstance(row, Sample):
                _check(row)
        # The keys alone may be readable beyond the place where the rest of a damaged file is not.
        places = {row[:2] for row in rows}
        assert [key for key in keys if key[:2] in places or key.position < ends.get(key.file, math.inf)] == rows

    return read


def _check(row: Sample) -> None:
    assert row.turns and row.turns[-1].role == "gpt" and row.turns[-1].value.strip()
    assert sum(turn.value.count(IMAGE_MARKER) for turn in row.turns) == len(row.images)
    for turn in row.turns:
        turn.value.encode()
    for one in row.images:
        with contextlib.suppress(OSError, ValueError):
            one.read(1 << 20)
    if row.video is not None:
        row.video.name.encode()


def _build_seeds(slug: str) -> Callable[[], list[Tree]]:
    """A source drawn in its native format; pictures are cut to a few bytes, because readers do not decode them."""

    def seeds() -> list[Tree]:
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            (written,) = write_demo_sources(Path(scratch), [slug], n_rows=6)
            files = sorted(p for p in written.source_dir.rglob("*") if p.is_file() and p.name != DEMO_MARKER_FILE)
            return [{p.relative_to(written.source_dir).as_posix(): _short(p) for p in files}]

    return seeds


def _short(path: Path) -> bytes:
    looked_into = path.suffix in (
        ".json",
        ".jsonl",
        ".parquet",
        ".csv",
        ".tsv",
        ".txt",
        ".html",
        ".p",
        ".gz",
        ".tar",
        ".zip",
    )
    return path.read_bytes() if looked_into or path.suffix[:2] == ".z" else path.read_bytes()[:64]


def _sources() -> Iterator[tuple[str, Target]]:
    """Demo data of every format, and every shape of the `records` reader."""
    catalog = load_catalog()
    formats = {}
    for slug in RECIPES:
        spec = catalog[slug]
        formats.setdefault(
            spec.format if spec.records is None else f"records_{spec.records.shape}_{bool(spec.records.turns)}", slug
        )
    for format, slug in sorted(formats.items(), key=str):
        yield f"source_{format}", Target(_build_seeds(slug), _read_source(catalog[slug]), (MvlError,), _TOKENS)
    spec = source("records", TABMWP)
    problems = {
        str(n): {"question": "Is it?", "choices": ["no", "yes"], "answer": "yes", "unit": None} for n in range(4)
    }
    tree = {"problems.json": json.dumps(problems).encode(), **{f"tables/{n}.png": b"x" for n in range(4)}}
    yield "source_records_choices", Target(lambda: [tree], _read_source(spec), (MvlError,), _TOKENS)
    by_index = RecordsMapping(
        files="*.csv", shape="csv", question="{q}", answer="{a}", choices="c", answer_is="index", image_field="p"
    )
    rows = b'q,a,c,p\nWhich?,1,"[""x"", ""y""]",0.png\nWhat?,0,"{""k"": ""v""}",data:image/png;base64,iVBO\n'
    spec = source("records", by_index)
    yield (
        "source_records_csv_index",
        Target(lambda: [{"a.csv": rows, "0.png": b"x"}], _read_source(spec), (MvlError,), _TOKENS),
    )


def _record_forms() -> Iterator[tuple[str, Target]]:
    """The shapes of files that only other people's data has, and a look at such files."""
    parts = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "Is <img1> it?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": "It is."}]
    record = json.dumps({"q": "Is it?", "a": ["yes", "no"], "ok": True, "m": talk}).encode()
    lists = {"question": "{q}", "answer": "{a.0} {ok}", "names": {"ok": ["no", "yes"]}}
    forms: dict[str, tuple[dict[str, Any], Tree]] = {
        "json": ({"files": "{split}/{name}.json", "id": "name", **lists}, {f"x/{n}.json": record for n in range(3)}),
        "jsonl": ({"files": "a.jsonl", "turns": "m", "marker": "<img{1}>"}, {"a.jsonl": record + b"\n" + record}),
        "text": ({"files": "{name}.txt", "question": "Is it?", "answer": "{text}"}, {"0.txt": b"yes", "1.txt": b"no"}),
        "webdataset": (
            {"files": "*.tar", "question": "{json.q}", "answer": "{json.a.*}", "image_field": "png"},
            {"s.tar": tar(("0.png", b"x" * 40), ("0.json", record), ("1.json", record), ("1.txt", b"yes"))},
        ),
        "arrow": ({"files": "*.arrow", **lists, "image_field": "p"}, {"a.arrow": _arrow_rows()}),
    }
    for shape, (fields, tree) in forms.items():
        mapping = RecordsMapping(shape=shape, **fields)  # type: ignore[arg-type]
        seeds = {**tree, "0.png": b"x"}
        yield (
            f"records_{shape}_form",
            Target(partial(list, [seeds]), _read_source(source("records", mapping)), (MvlError,), _TOKENS),
        )
    everything = {name: data for _, tree in forms.values() for name, data in tree.items()}
    csv = "file;question;answer\na.png;Wo?;Hier\nb.png;Wann?;Jetzt\n"
    trees = [everything, {"a.csv": csv.encode("utf-16"), "b.txt": csv.encode()}, {"a.arrow": _arrow_rows()}]
    yield "sniff", Target(lambda: trees, _sniff, (MvlError,), _TOKENS)


def _sniff(folder: Path) -> None:
    sniff_folder(folder, {}).format_yaml()


def _arrow_rows() -> bytes:
    table = pa.table(
        {"q": ["Is it?"] * 4, "a": [["yes"]] * 4, "ok": [True] * 4, "p": [{"bytes": b"x", "path": "y"}] * 4}
    )
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


_TOKENS = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"null",
    b"NaN",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"id"',
    b"<image>",
    b"\\ud800",
    b"\0",
    b"\n",
)
_XML = b'<?xml version="1.0"?><a><file>7.png</file><o i="1"><n>cat</n></o><o><n>dog</n></o><size/></a>'
_BOXES = b"\n".join(json.dumps({"bbox": [1.5, 2, 30, 40], "width": 64, "height": 48}).encode() for _ in range(4))

TARGETS: dict[str, Target] = {
    "json": Target(_json_seeds, _read_json, (), _TOKENS),
    "jsonl": Target(_line_seeds, lambda folder: _items(json_stream.iter_lines(folder / "data")), (), _TOKENS),
    "xml": Target(
        lambda: [{"data": _XML}],
        lambda folder: _items(single_record_files.read_xml(folder / "data")),
        (),
        (
            b"<a>",
            b"</a>",
            b"<!ENTITY a 'b'>",
            b"<!DOCTYPE a [",
            b"&lt;",
            b"&a;",
            b"<![CDATA[",
            b"\0",
            b"\xff",
            b"<a " * 9,
        ),
    ),
    "delimited": Target(
        _delimited_seeds, _read_delimited, (), (b'"', b'""', b",", b"\t", b"\0", b"\r", b"\n", b"\xff")
    ),
    "tar": Target(
        lambda: [{"x.tar": data} for data in _tars()],
        _read_archive,
        (RejectError,),
        (b"path=", b"size=", b"ustar", b"././@LongLink"),
    ),
    "packed_tar": Target(
        lambda: [{"x.tar.gz": pack(_tars()[1])} for pack in (gzip.compress, bz2.compress, lzma.compress)],
        _read_archive,
        (RejectError,),
    ),
    "zip": Target(
        lambda: [{"x.zip": data} for data in _zips()],
        _read_archive,
        (RejectError,),
        (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"),
    ),
    "pickle": Target(
        _pickle_seeds, _read_pickle, (UnsafePickle,), tuple(bytes([b]) for b in b"cio\x81\x93R(.}]0q\x8a\x8bL\x94")
    ),
    "picture": Target(
        _image_seeds,
        _read_image,
        (ImageError,),
        (b"IDAT", b"IHDR", b"acTL", b"eXIf", b"\xff\xda", b"\xff\xc2", b"RIFF", b"P5", b"\x2c"),
    ),
    "video": Target(
        _video_seeds,
        _read_video,
        (),
        (b"moov", b"mdat", b"ffconcat version 1.0\nfile ", b"#EXTM3U\n", b"stts", b"\x1a\x45\xdf\xa3"),
    ),
    "boxes": Target(lambda: [{"data.jsonl": _BOXES}], _read_box, (), _TOKENS),
    "yaml": Target(
        _yaml_seeds,
        _read_yaml,
        (MvlError,),
        (
            b"!!python/object/apply:os.system ",
            b"*a",
            b"&a",
            b"<<: ",
            b"? ",
            b"!!int ",
            b"!!timestamp ",
            b"{",
            b"[",
            b"- ",
            b"---\n",
        ),
    ),
    **dict(_sources()),
    **dict(_record_forms()),
}
