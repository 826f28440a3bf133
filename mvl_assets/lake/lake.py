"""The lake: one root, many tables. Everything else asks it for a table by name."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from mvl_assets.lake.images import ImageStore
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.schema import ANSWERS, IMAGES, get_table_spec
from mvl_assets.lake.table import Table

if TYPE_CHECKING:
    from mvl_assets.lake.answers import AnswerLog


class Lake:
    """A folder or object-store prefix of Lance tables.

    Table names are `images`, `samples`, `rejects`, `category/<c>`, `rewritten/<c>`, `judged/<c>`, `curation/<x>`,
    `mixture/<stage>`, `pack_plan/<stage>`, `evaluation/<suite>`; answers are one table per stage and source.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._tables: dict[str, Table] = {}
        self._indices: dict[str, KeyIndex] = {}

    def get_table(self, name: str) -> Table:
        if name not in self._tables:
            self._tables[name] = Table(f"{self.root}/{name}.lance", get_table_spec(name))
        return self._tables[name]

    def get_index(self, name: str) -> KeyIndex:
        """Random access by key to a table; shared by all readers of this lake."""
        if name not in self._indices:
            self._indices[name] = KeyIndex(self.get_table(name))
        return self._indices[name]

    def list_tables(self, family: str) -> list[str]:
        """The tables of a family that exist, such as `rewritten/ocr` and `rewritten/chart` for `rewritten`."""
        filesystem, path = (
            pafs.FileSystem.from_uri(self.root) if "://" in self.root else (pafs.LocalFileSystem(), self.root)
        )
        file_infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/{family}", allow_not_found=True))
        return sorted(
            f"{family}/{file_info.base_name.removesuffix('.lance')}"
            for file_info in file_infos
            if file_info.base_name.endswith(".lance")
        )

    @cached_property
    def images(self) -> ImageStore:
        return ImageStore(Table(f"{self.root}/images.lance", IMAGES))

    def get_answer_log(self, stage: str, source: str) -> AnswerLog:
        """What was paid for in one stage for one source."""
        from mvl_assets.lake.answers import AnswerLog

        return AnswerLog(Table(f"{self.root}/answers/{stage}/{source}.lance", ANSWERS), stage, source)
