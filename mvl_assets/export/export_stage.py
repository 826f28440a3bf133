"""Writes a mixture in a format: shards in parallel, or one JSON file with a folder of images.

An export that is killed goes on where it stopped when the same command is run again, and ends with the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.execution.create import create_executor
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.formats.export_format import ExportFormat, ShardTask
from mvl_assets.export.formats.json_formats import JsonFormat
from mvl_assets.export.json_files import write_json_files
from mvl_assets.export.row_reader import ImageForm
from mvl_assets.export.shard_plan import PART_ROWS, SHARD_BYTES, Shard, iter_shards
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import check_store
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.row_addresses import AddressBook, open_mixture_addresses

Layout = Literal["auto", "files", "shards"]

FILES_MAX_ROWS = 1_000_000
"""Rows of a mixture below which the layout `auto` of a JSON format means files."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How the files of an export are.

    Attributes:
        layout: Of JSON formats: one file and a folder of images, or shards; `auto` chooses by the number of rows.
        image_form: Whether images are the source's bytes or standardised.
        shard_bytes: Bytes of images in a shard.
        mixture_filter: Which rows are taken; None takes all.
    """

    layout: Layout = "auto"
    image_form: ImageForm = "raw"
    shard_bytes: int = SHARD_BYTES
    mixture_filter: MixtureFilter | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported: `name` is that of the JSON file or of the folder of shards; `digest` is of the rows."""

    name: str
    rows: int
    images: int
    digest: str
    shards: int = 0


def export_stage(
    lake: Lake,
    stage: str,
    folder: ExportFolder,
    format_: ExportFormat,
    options: ExportOptions | None = None,
    executor: Executor | None = None,
) -> ExportResult:
    """Write a mixture to a folder; what is there already and still right is kept.

    Memory holds the rows and images of one group of rows per process, whatever the size of the mixture.

    Args:
        lake: The lake.
        stage: Training stage of the mixture.
        folder: Folder of the export.
        format_: The format.
        options: How the files are.
        executor: Writes the shards; default: the processes of this machine, which have its folders.

    Raises:
        LakeError: A row or an image of the mixture is not in the lake.
        StoreError: The object store of the folder cannot be used.
    """
    options = options or ExportOptions()
    check_store(folder.uri)
    n_mixture_rows = lake.get_table(f"mixture/{stage}").count()
    if isinstance(format_, JsonFormat) and not has_shards(n_mixture_rows, options.layout):
        n_rows, n_images, digest = write_json_files(
            lake, stage, folder, format_, options.image_form, options.mixture_filter
        )
        for name in format_.list_own_folders(stage):
            folder.delete_folder(name)
        return ExportResult(format_.get_file_name(stage), n_rows, n_images, digest)
    with open_mixture_addresses(
        lake, stage, PART_ROWS, with_provenance=True, mixture_filter=options.mixture_filter
    ) as book:
        book.require_complete()
        shards = write_shards(lake, stage, folder, format_, book, options, executor or ProcessExecutor())
    if isinstance(format_, JsonFormat):
        folder.delete_file(format_.get_file_name(stage))
    digest = compute_digest([shard.name for shard in shards])
    n_rows, n_images = (sum(getattr(shard, name) for shard in shards) for name in ("n_rows", "n_images"))
    return ExportResult(stage, n_rows, n_images, digest, len(shards))


def has_shards(n_rows: int, layout: Layout) -> bool:
    """Return whether a JSON format is written in shards."""
    return n_rows > 0 and (layout == "shards" or (layout == "auto" and n_rows >= FILES_MAX_ROWS))


def choose_executor(config: ExecutorConfig, folder: ExportFolder) -> Executor:
    """Return the executor that a profile names, or this machine's processes for a folder that only they can write."""
    if folder.local_path is not None and config.kind != "processes":
        return ProcessExecutor()
    return create_executor(config)


def write_shards(
    lake: Lake,
    name: str,
    folder: ExportFolder,
    format_: ExportFormat,
    book: AddressBook,
    options: ExportOptions,
    executor: Executor,
) -> list[Shard]:
    """Write the shards of rows that are missing, remove those of others, and return all in order."""
    shards: list[Shard] = []
    tasks = _iter_missing(lake, name, folder, format_, book, options, shards)
    with closing(executor.run(_ShardWriter(format_), tasks)) as ends:
        for _ in ends:
            pass
    _delete_others(folder, format_, name, shards)
    format_.finish(folder, name, shards)
    return shards


@dataclass(frozen=True, slots=True)
class _ShardWriter:
    """`ExportFormat.write_shard` as a function that can be pickled."""

    format: ExportFormat

    def __call__(self, task: ShardTask) -> None:
        self.format.write_shard(task)


def _iter_missing(
    lake: Lake,
    name: str,
    folder: ExportFolder,
    format_: ExportFormat,
    book: AddressBook,
    options: ExportOptions,
    shards: list[Shard],
) -> Iterator[ShardTask]:
    """Yield tasks for the shards that are not there; list all shards in `shards`."""
    form = (*format_.identity, options.image_form)
    for shard, addresses in iter_shards(book, form, options.shard_bytes):
        shards.append(shard)
        if folder.find_missing(format_.list_files(name, shard)[-1:]):
            yield ShardTask(lake.address, folder, name, shard, addresses, options.image_form)


def _delete_others(folder: ExportFolder, format_: ExportFormat, name: str, shards: Iterable[Shard]) -> None:
    known_files = {file for shard in shards for file in format_.list_files(name, shard)}
    for own_folder in format_.list_own_folders(name):
        for file in list(folder.list_files(own_folder)):
            if not format_.is_own_file(file, known_files):
                folder.delete_file(file)
