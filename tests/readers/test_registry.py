"""Every module of `readers/formats/` is a format: for the catalog, the readers, the fetch rules and the demo data."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mvl_assets
from mvl_assets.config.catalog import FORMATS
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.errors import SourceError
from mvl_assets.readers.registry import get_format, get_key_reader, get_reader

NEW_FORMAT = """
from mvl_assets.readers.format import Format
from mvl_assets.readers.rows import build_qa_turns
from mvl_assets.readers.sample import Sample


def read(source, root):
    yield Sample("a.words", 0, build_qa_turns("Which?", "This."), "w1")


FORMAT = Format(row_files=("*.words",), description="the *.words files", read=read)
"""

USE = """
import sys
from pathlib import Path
from mvl_assets.config.catalog import FORMATS, SourceSpec
from mvl_assets.fetch.rules import format_manual_instructions, select_files
from mvl_assets.readers.registry import get_key_reader, get_reader

assert "words" in FORMATS
source = SourceSpec(
    slug="s", title="S", category="general", group="A", modality=None, format="words", hub={"repo": "o/n"}
)
(sample,) = get_reader("words")(source, Path())
assert [tuple(key) for key in get_key_reader("words")(source, Path())] == [("a.words", 0, "w1")]
assert select_files(source, ["a.words", "README.md"]) == {"a.words": "a.words"}
assert "the *.words files" in format_manual_instructions(source)
imported = {name.rpartition(".")[2] for name in sys.modules if name.startswith("mvl_assets.readers.formats.")}
assert imported == {"words"}, imported
"""


def test_a_module_dropped_into_the_folder_is_a_format_and_no_other_is_imported(tmp_path: Path) -> None:
    copy = tmp_path / "mvl_assets"
    shutil.copytree(Path(mvl_assets.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "readers" / "formats" / "words.py").write_text(NEW_FORMAT, encoding="utf-8")
    subprocess.run([sys.executable, "-c", USE], check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_declares_its_files_and_its_readers(name: str) -> None:
    declared = get_format(name)
    assert declared.row_files and declared.description
    assert get_reader(name).args == (declared.read,)
    assert declared.read_keys in (None, get_key_reader(name))


def test_every_format_has_a_demo_layout() -> None:
    assert {layout.format for layout in LAYOUTS.values()} == set(FORMATS)


@pytest.mark.parametrize("name", [None, "csv", "../registry", "__init__"])
def test_an_unknown_format_is_a_source_error_that_lists_the_known_ones(name: str | None) -> None:
    with pytest.raises(SourceError, match="no reader") as caught:
        get_reader(name)
    assert "llava_json" in str(caught.value.hint)
