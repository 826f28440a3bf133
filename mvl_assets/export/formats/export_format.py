"""The interface of a format: how a shard is written, and what else its readers need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.row_reader import ImageForm
from mvl_assets.export.shard_plan import Shard
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.row_addresses import RowAddresses


@dataclass(frozen=True, slots=True)
class ShardTask:
    """The task of writing one shard. Can be pickled.

    Attributes:
        lake_root: The lake.
        folder: The export's folder.
        stage: Training stage of the rows, or another name that the files begin with.
        shard: The shard.
        addresses: Where its rows are.
        image_form: Form of its images.
    """

    lake_root: str
    folder: ExportFolder
    stage: str
    shard: Shard
    addresses: RowAddresses
    image_form: ImageForm

    def __str__(self) -> str:
        return f"{self.folder}/{self.stage}/{self.shard.name}"

    def open_lake(self) -> Lake:
        """Open the lake for reading."""
        return Lake(self.lake_root).snapshot()


class ExportFormat(ABC):
    """A format of exports. Has no state, so that it is the same in any process."""

    name: ClassVar[str]
    description: ClassVar[str]
    """For a person who chooses."""
    layout_version: ClassVar[int] = 1
    """Raised when the same rows are written in another way: shards that are there are then made again."""
    loads_with_datasets: ClassVar[bool] = True
    """Whether `datasets`, and so a hub's viewer, can read the files."""

    @property
    def identity(self) -> Sequence[object]:
        """What decides the bytes of a shard besides its rows and the form of its images."""
        return (self.name, self.layout_version)

    @abstractmethod
    def list_files(self, stage: str, shard: Shard) -> list[str]:
        """Return the files of a shard below the export's folder. The last is there only if all are."""

    @abstractmethod
    def write_shard(self, task: ShardTask) -> None:
        """Write the files of a shard, each complete or not at all."""

    def list_data_files(self, stage: str) -> list[str]:
        """Return the patterns that may match a stage's files; a card names the first that does."""
        return []

    def finish(self, folder: ExportFolder, stage: str, shards: Sequence[Shard]) -> None:
        """Write what a stage has besides its shards. Called once all of them are there."""
        return

    def is_own_file(self, name: str, known_files: Collection[str]) -> bool:
        """Return whether a file in one of the own folders belongs there; `known_files` are those of the shards."""
        return name in known_files

    def list_own_folders(self, stage: str) -> list[str]:
        """Return the folders that hold nothing but files of this stage's shards: other files there are removed."""
        return [stage]
