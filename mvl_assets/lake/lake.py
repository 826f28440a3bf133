"""The lake: a root with many tables, opened by name."""

from __future__ import annotations

import pyarrow.fs as pafs

from mvl_assets.lake.answer_lookup import WHOLE_SOURCE, AnswerLookup, is_related
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.images import ImageStore
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.schemas.data_tables import ANSWERS, IMAGES
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake.schemas.tables import get_table_spec
from mvl_assets.lake.storage import open_filesystem
from mvl_assets.lake.table import Table


class Lake:
    """A folder or object-store prefix of Lance tables.

    Table names are `images`, `samples`, `rejects`, `tombstones`, `category/{category}`, `rewritten/{category}`,
    `judged/{category}`, `scored/{category}`, `curation/{check}`, `mixture/{stage}`, `pack_plan/{stage}`,
    `evaluation/{suite}`, `answers/{stage}/{source}`, `answers/{stage}/{source}/{shard}` and
    `answers/{stage}/{source}/try`.
    """

    def __init__(self, root: str, *, is_snapshot: bool = False) -> None:
        self.root = root.rstrip("/")
        self.is_snapshot = is_snapshot
        self._tables: dict[str, Table] = {}
        self._indices: dict[tuple[str, str | None], KeyIndex] = {}
        self._image_stores: dict[str | None, ImageStore] = {}

    def snapshot(self) -> Lake:
        """Return this lake for reading, each table at the version that is newest when it is first used there.

        For many small look-ups: elsewhere each of them asks for the newest version, on an object store by a listing.
        """
        return Lake(self.root, is_snapshot=True)

    def get_table(self, name: str) -> Table:
        """Return a table by name, which need not exist. Raises `KeyError` for a name without a spec."""
        if name not in self._tables:
            self._tables[name] = self._open_table(name, get_table_spec(name))
        return self._tables[name]

    def get_index(self, name: str, partition_key: str | None = None) -> KeyIndex:
        """Return the key index of a table, or of one partition of it, shared by all readers of this lake."""
        if (name, partition_key) not in self._indices:
            self._indices[name, partition_key] = KeyIndex(self.get_table(name), partition_key)
        return self._indices[name, partition_key]

    def list_tables(self, family: str) -> list[str]:
        """List the tables of a family that exist, such as `rewritten/chart` and `rewritten/ocr` for `rewritten`."""
        filesystem, path = open_filesystem(self.root)
        file_infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/{family}", allow_not_found=True))
        return sorted(
            f"{family}/{file_info.base_name.removesuffix('.lance')}"
            for file_info in file_infos
            if file_info.base_name.endswith(".lance")
        )

    @property
    def images(self) -> ImageStore:
        """The images of all sources, for reading. Its index holds 24 bytes for each of them."""
        return self.get_images(None)

    def get_images(self, source: str | None) -> ImageStore:
        """Return the images of one source."""
        if source not in self._image_stores:
            self._image_stores[source] = ImageStore(self.get_table(IMAGES.name), source)
        return self._image_stores[source]

    def get_answer_log(self, stage: str, source: str, shard: str = WHOLE_SOURCE) -> AnswerLog:
        """Return the answers of one pipeline stage for one source or shard, for writing them."""
        name = "/".join(["answers", stage, source, *([shard] if shard else [])])
        return AnswerLog(self._open_table(name, ANSWERS), stage, source)

    def get_answer_lookup(self, stage: str, source: str, shard: str = WHOLE_SOURCE) -> AnswerLookup:
        """Return the answers of one pipeline stage that may be about rows of a shard, or of a whole source."""
        names = self.list_tables(f"answers/{stage}/{source}")
        stored_shards = [WHOLE_SOURCE, *(name.rpartition("/")[2] for name in names)]
        shards = dict.fromkeys([shard, *(other for other in stored_shards if is_related(shard, other))])
        return AnswerLookup({other: self.get_answer_log(stage, source, other) for other in shards}, shard)

    def _open_table(self, name: str, spec: TableSpec) -> Table:
        return Table(f"{self.root}/{name}.lance", spec, is_snapshot=self.is_snapshot)
