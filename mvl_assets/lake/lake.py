"""The lake: a root with many tables, opened by name."""

from __future__ import annotations

import pyarrow.fs as pafs

from mvl_assets.common.arm_address import ArmId, format_lake_address, parse_arm_id, split_lake_address
from mvl_assets.lake.answer_lookup import TRIED_ROWS, WHOLE_SOURCE, AnswerLookup, is_related
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.batch_journal import BatchJournal
from mvl_assets.lake.images import ImageStore
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.schemas.data_tables import ANSWERS, BATCHES, IMAGES
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake.schemas.tables import get_table_spec
from mvl_assets.lake.storage import open_filesystem
from mvl_assets.lake.table import Table

ARM_FAMILIES = ("mixture", "pack_plan", "packed_rows", "evaluation")
"""Families of tables that every arm of a study has of its own."""


class Lake:
    """A folder or object-store prefix of Lance tables.

    Table names are `images`, `samples`, `rejects`, `tombstones`, `category/{category}`, `rewritten/{category}`,
    `judged/{category}`, `scored/{category}`, `scores/{name}`, `curation/{check}`, `mixture/{stage}`,
    `pack_plan/{stage}`, `evaluation/{suite}`, `answers/{stage}/{source}`, `answers/{stage}/{source}/{shard}`,
    `answers/{stage}/{source}/try`, and `batches/...` beside each of the answers.

    Tables of an arm of a study are `mixture/{study}/{arm}/{seed}/{stage}` and so on. A lake that was opened at the
    address of an arm (`common.arm_address`) has these under the short names, and everything else as it is.

    Attributes:
        root: Folder or prefix.
        arm_id: The arm whose tables are meant; None for those of the pipeline.
    """

    def __init__(self, address: str, *, is_snapshot: bool = False) -> None:
        self.root, self.arm_id = split_lake_address(address)
        self.is_snapshot = is_snapshot
        self._tables: dict[str, Table] = {}
        self._indices: dict[tuple[str, str | None], KeyIndex] = {}
        self._image_stores: dict[str | None, ImageStore] = {}

    def snapshot(self) -> Lake:
        """Return this lake for reading, each table at the version that is newest when it is first used there.

        For many small look-ups: elsewhere each of them asks for the newest version, on an object store by a listing.
        """
        return Lake(self.address, is_snapshot=True)

    def get_pipeline_lake(self) -> Lake:
        """Return the lake with the pipeline's own tables, whichever arm this one was opened for."""
        return self if self.arm_id is None else Lake(self.root, is_snapshot=self.is_snapshot)

    @property
    def address(self) -> str:
        """What opens this lake in another process: the root, and the arm."""
        return format_lake_address(self.root, self.arm_id)

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
        names, _ = self._list_folder(self.resolve_name(family))
        return [f"{family}/{name}" for name in names]

    def list_tables_with_arms(self, family: str) -> list[str]:
        """List the tables of a family that exist, those of all arms after the pipeline's own."""
        arm_tables = (
            f"{family}/{arm_id.path}/{name}"
            for arm_id in self.list_arms(family)
            for name in self._list_folder(f"{family}/{arm_id.path}")[0]
        )
        return [*(f"{family}/{name}" for name in self._list_folder(family)[0]), *arm_tables]

    def list_arms(self, family: str = ARM_FAMILIES[0]) -> list[ArmId]:
        """List the arms that have tables of a family."""
        if family not in ARM_FAMILIES:
            return []
        paths = [""]
        for _ in range(3):  # study, arm, seed
            paths = [f"{path}/{name}" for path in paths for name in self._list_folder(f"{family}{path}")[1]]
        return sorted(parse_arm_id(path.strip("/")) for path in paths)

    def resolve_name(self, name: str) -> str:
        """Return where a table, or a family of them, lies below the root."""
        family, separator, rest = name.partition("/")
        if self.arm_id is None or family not in ARM_FAMILIES:
            return name
        return f"{family}/{self.arm_id.path}{separator}{rest}"

    def remove_folder(self, name: str) -> None:
        """Remove a folder of tables below the root, if it is there. Nobody may be using them."""
        filesystem, path = open_filesystem(self.root)
        if filesystem.get_file_info(f"{path}/{name}").type == pafs.FileType.Directory:
            filesystem.delete_dir(f"{path}/{name}")

    def _list_folder(self, name: str) -> tuple[list[str], list[str]]:
        """Return the names of the tables in a folder, and those of its folders."""
        filesystem, path = open_filesystem(self.root)
        file_infos = filesystem.get_file_info(pafs.FileSelector(f"{path}/{name}", allow_not_found=True))
        names = sorted(info.base_name for info in file_infos if info.type == pafs.FileType.Directory)
        return (
            [table_name.removesuffix(".lance") for table_name in names if table_name.endswith(".lance")],
            [folder_name for folder_name in names if not folder_name.endswith(".lance")],
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
        name = "/".join([stage, source, *([shard] if shard else [])])
        journal = BatchJournal(self._open_table(f"{BATCHES.name}/{name}", BATCHES))
        return AnswerLog(self._open_table(f"{ANSWERS.name}/{name}", ANSWERS), stage, source, journal)

    def get_answer_lookup(self, stage: str, source: str, shard: str = WHOLE_SOURCE) -> AnswerLookup:
        """Return the answers of one pipeline stage that may be about rows of a shard, or of a whole source."""
        return AnswerLookup(self._get_related_logs(stage, source, shard), shard)

    def list_related_answer_logs(self, stage: str, source: str, shard: str = WHOLE_SOURCE) -> list[AnswerLog]:
        """Return the answer logs that may be about rows of a shard, without those of trials."""
        logs = self._get_related_logs(stage, source, shard)
        return [] if shard == TRIED_ROWS else [log for name, log in logs.items() if name != TRIED_ROWS]

    def _get_related_logs(self, stage: str, source: str, shard: str) -> dict[str, AnswerLog]:
        names = self.list_tables(f"answers/{stage}/{source}")
        stored_shards = [WHOLE_SOURCE, *(name.rpartition("/")[2] for name in names)]
        shards = dict.fromkeys([shard, *(other for other in stored_shards if is_related(shard, other))])
        return {other: self.get_answer_log(stage, source, other) for other in shards}

    def _open_table(self, name: str, spec: TableSpec) -> Table:
        return Table(f"{self.root}/{self.resolve_name(name)}.lance", spec, is_snapshot=self.is_snapshot)
