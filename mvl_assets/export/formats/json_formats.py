r"""Formats that are JSON with image files beside it. An entry names its images relative to the export's folder.

    llava_json     {"id": "3f…", "image": ["images/9a1/9a1f….png"],
                    "conversations": [{"from": "human", "value": "<image>\n…"}, {"from": "gpt", "value": "…"}], …}
    qwen_vl        the same; a row without images has an empty list
    ms_swift       {"messages": [{"role": "user", "content": "<image>\n…"}, …], "images": ["images/9a1/9a1f….png"], …}
    llama_factory  the same, with `dataset_info.json`

Provenance is text throughout, empty where it is unknown.

Two layouts: `files` is one file per stage and a folder of images. `shards`, for mixtures whose images are too many for
that, is a folder of JSON lines, and one of tars with the images that each names; unpacking all tars in the export's
folder gives the paths of the entries.
"""

from __future__ import annotations

import json
import tarfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow, escape_other_placeholders
from mvl_assets.export.formats.export_format import ExportFormat, ShardTask
from mvl_assets.export.formats.tar_formats import add_member
from mvl_assets.export.row_reader import ImageForm, iter_row_groups
from mvl_assets.export.shard_plan import Shard

_SPEAKER_BY_ROLE = {"user": "human", "assistant": "gpt", "system": "system"}
_IMAGE_FOLDERS: dict[ImageForm, str] = {"raw": "images", "standard": "standard_images"}


class JsonFormat(ExportFormat):
    """Entries of JSON, and files of images."""

    is_list = False
    """Whether the layout `files` has one JSON list, rather than JSON lines."""

    @abstractmethod
    def build_entry(self, row: ExportRow, image_paths: Sequence[str]) -> dict[str, Any]:
        """Return a row without its provenance."""

    def write_index(self, folder: ExportFolder, stage: str, name: str) -> None:
        """Write what the trainer asks for besides the data; `name` is the file or folder of a stage."""
        return

    def format_entry(self, row: ExportRow, path_by_id: Mapping[str, str]) -> str:
        """Return a row as a line of JSON."""
        entry = self.build_entry(row, [path_by_id[image_id] for image_id in row.image_ids])
        return json.dumps(entry | {name: _format_value(v) for name, v in row.provenance.items()}, ensure_ascii=False)

    def get_file_name(self, stage: str) -> str:
        """Return the file of a stage in the layout `files`."""
        return f"{stage}.json" if self.is_list else f"{stage}.jsonl"

    def list_files(self, stage: str, shard: Shard) -> list[str]:
        return [f"{stage}-images/{shard.name}.tar", f"{stage}/{shard.name}.jsonl"]

    def list_data_files(self, stage: str) -> list[str]:
        return [self.get_file_name(stage), f"{stage}/train-*.jsonl"]

    def list_own_folders(self, stage: str) -> list[str]:
        return [stage, f"{stage}-images"]

    def write_shard(self, task: ShardTask) -> None:
        tar_name, lines_name = self.list_files(task.stage, task.shard)
        # Closed from the last to the first, so that the lines are there only if the tar is.
        with (
            task.folder.write_file(lines_name) as lines_path,
            lines_path.open("w", encoding="utf-8") as lines,
            task.folder.write_file(tar_name) as tar_path,
            tarfile.open(tar_path, "w") as tar,
        ):
            path_by_id: dict[str, str] = {}
            for group in iter_row_groups(task.open_lake(), task.addresses, task.image_form):
                for image_id, file in group.file_by_id.items():
                    if image_id not in path_by_id:
                        path_by_id[image_id] = build_image_path(file.name, task.image_form)
                        add_member(tar, path_by_id[image_id], file.data)
                for row in group.rows:
                    lines.write(self.format_entry(row, path_by_id) + "\n")

    def finish(self, folder: ExportFolder, stage: str, shards: Sequence[Shard]) -> None:
        self.write_index(folder, stage, stage)


class LlavaJsonFormat(JsonFormat):
    """LLaVA's training JSON, as MAmmoTH-VL released its data.

    A row without images has no `image`: readers of this format take the key for a sign of images.
    """

    name = "llava_json"
    description = "LLaVA's training JSON with image files, as LLaVA-NeXT reads it and MAmmoTH-VL was released"
    is_list = True

    def build_entry(self, row: ExportRow, image_paths: Sequence[str]) -> dict[str, Any]:
        return {
            "id": row.row_id,
            **({"image": list(image_paths)} if image_paths else {}),
            "conversations": [
                {"from": _SPEAKER_BY_ROLE[message["role"]], "value": message["content"]} for message in row.messages
            ],
        }


class QwenVlFormat(LlavaJsonFormat):
    """Entries of Qwen-VL's fine-tuning code; `data_path` there is the export's folder."""

    name = "qwen_vl"
    description = "JSON lines with image files, as Qwen-VL's fine-tuning code reads them"
    is_list = False

    def build_entry(self, row: ExportRow, image_paths: Sequence[str]) -> dict[str, Any]:
        entry = super().build_entry(replace(row, messages=escape_other_placeholders(row.messages)), image_paths)
        return {"image": [], **entry}


class MsSwiftFormat(JsonFormat):
    """Messages and images, as ms-swift reads them; set ROOT_IMAGE_DIR to the export's folder."""

    name = "ms_swift"
    description = "JSON lines with image files, as ms-swift reads them"

    def build_entry(self, row: ExportRow, image_paths: Sequence[str]) -> dict[str, Any]:
        return {
            "id": row.row_id,
            "messages": escape_other_placeholders(row.messages),
            "images": list(image_paths),
        }


class LlamaFactoryFormat(MsSwiftFormat):
    """The rows of ms-swift, declared in `dataset_info.json`; `dataset_dir` is the export's folder."""

    name = "llama_factory"
    description = "JSON lines with image files and dataset_info.json, as LLaMA-Factory reads them"

    def write_index(self, folder: ExportFolder, stage: str, name: str) -> None:
        declared = {}
        if not folder.find_missing(["dataset_info.json"]):
            with folder.open_file("dataset_info.json") as file:
                declared = json.loads(file.read())
        declared[stage] = {
            "file_name": name,
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
        with folder.write_file("dataset_info.json") as path:
            path.write_text(json.dumps(dict(sorted(declared.items())), indent=2) + "\n", encoding="utf-8")


def _format_value(value: Any) -> str:
    """Return a value of the provenance as text, empty for null.

    Readers of JSON take the type of a column from the first lines, and fail at the first value after a run of nulls.
    """
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def build_image_path(file_name: str, image_form: ImageForm) -> str:
    """Return the path of an image in the export's folder. Up to 40 million stay below 10,000 in each of its folders."""
    return f"{_IMAGE_FOLDERS[image_form]}/{file_name[:3]}/{file_name}"
