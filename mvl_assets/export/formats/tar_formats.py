"""Formats that are tars of samples: WebDataset, and Energon, which reads the same tars with an index beside them.

The members of a sample have its row id as their name:

    3f….json    {"id": "3f…", "messages": [...], "images": ["0.jpg", "1.png"], "image_ids": [...], "source": ...}
    3f….0.jpg
    3f….1.png
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Sequence

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow
from mvl_assets.export.formats.export_format import ExportFormat, ShardTask
from mvl_assets.export.row_reader import RowGroup, iter_row_groups
from mvl_assets.export.shard_plan import Shard

_ENERGON_DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
"""Energon hands such samples to a cooker of the training code as they are."""

_ENERGON_SHARDS = ".nv-meta/shards.txt"
"""The shards that the index beside it is of."""


class WebDatasetFormat(ExportFormat):
    """Tars of samples, in the order of the mixture."""

    name = "webdataset"
    description = "tars of samples in shards near 1 GB, as the webdataset library reads them"
    # It wants the same files in every sample, and samples differ in their images.
    loads_with_datasets = False

    def list_files(self, stage: str, shard: Shard) -> list[str]:
        return [f"{stage}/{shard.name}.tar"]

    def list_data_files(self, stage: str) -> list[str]:
        return [f"{stage}/train-*.tar"]

    def write_shard(self, task: ShardTask) -> None:
        (name,) = self.list_files(task.stage, task.shard)
        with task.folder.write_file(name) as path, tarfile.open(path, "w") as tar:
            for group in iter_row_groups(task.open_lake(), task.addresses, task.image_form):
                for row in group.rows:
                    _add_sample(tar, row, group)


class EnergonFormat(WebDatasetFormat):
    """WebDataset with what `energon prepare` would ask for; run it once in an environment that has Energon."""

    name = "energon"
    description = "WebDataset with Energon's metadata; `energon prepare` then writes its index"

    def is_own_file(self, name: str, known_files: Collection[str]) -> bool:
        return name in known_files or "/.nv-meta/" in name or name.removesuffix(".idx") in known_files

    def finish(self, folder: ExportFolder, stage: str, shards: Sequence[Shard]) -> None:
        names = "".join(f"{shard.name}.tar\n" for shard in shards)
        if not folder.find_missing([f"{stage}/{_ENERGON_SHARDS}"]):
            with folder.open_file(f"{stage}/{_ENERGON_SHARDS}") as file:
                if file.read().decode() == names:
                    return
        folder.delete_folder(f"{stage}/.nv-meta")  # an index of other shards
        for name, text in (("dataset.yaml", _ENERGON_DATASET), (_ENERGON_SHARDS.rpartition("/")[2], names)):
            with folder.write_file(f"{stage}/.nv-meta/{name}") as path:
                path.write_text(text, encoding="utf-8")


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar, without times and owners, so that equal content gives an equal tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_sample(tar: tarfile.TarFile, row: ExportRow, group: RowGroup) -> None:
    files = [group.file_by_id[image_id] for image_id in row.image_ids]
    names = [f"{number}.{file.name.rpartition('.')[2]}" for number, file in enumerate(files)]
    content = {
        "id": row.row_id,
        "messages": row.messages,
        "images": names,
        "image_ids": row.image_ids,
        **row.provenance,
    }
    add_member(tar, f"{row.row_id}.json", json.dumps(content, ensure_ascii=False).encode())
    for name, file in zip(names, files, strict=True):
        add_member(tar, f"{row.row_id}.{name}", file.data)
