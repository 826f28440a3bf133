"""Judged pairs as a data set of FiftyOne: a sample for each pair with an image, verdicts as a label to filter by.

    fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)

The folder has `samples.json`, `metadata.json` and image files. It is the form that every release reads: one with a
`version` in its metadata would be read as the database's own documents, which change between releases.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow
from mvl_assets.export.export_stage import ExportResult
from mvl_assets.export.json_files import CHUNK_ROWS, FileFrame, write_entries
from mvl_assets.export.review import build_pair_columns
from mvl_assets.export.row_reader import ImageForm
from mvl_assets.export.stale_exports import FIFTYONE_SAMPLES
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import check_store
from mvl_assets.lake_queries.row_addresses import open_judged_addresses

FIFTYONE = "fiftyone"
METADATA_FILE = "metadata.json"
_FRAME = FileFrame('{"samples": [\n', ",\n", "\n]}\n")
_METADATA = {"media_type": "image", "info": {"description": "judged pairs of instruction data, exported by mvl"}}


def export_fiftyone(
    lake: Lake,
    folder: ExportFolder,
    categories: Collection[str],
    max_rows: int | None = None,
    image_form: ImageForm = "raw",
) -> tuple[ExportResult, int]:
    """Write judged pairs and their images; images that are there are kept.

    Args:
        lake: The lake.
        folder: Folder of the export.
        categories: The categories, in order.
        max_rows: Write this many pairs at most, as `export_review`.
        image_form: Whether images are the source's bytes or standardised; a browser may not show the former.

    Returns:
        What was written, and the number of pairs without an image, which are left out: a sample is an image.
    """
    check_store(folder.uri)
    with open_judged_addresses(lake, categories, CHUNK_ROWS, max_rows) as book:
        counts = write_entries(lake, book, folder, FIFTYONE_SAMPLES, _FRAME, format_sample, image_form)
        n_left_out = book.count_rows() - counts.n_rows
    with folder.write_file(METADATA_FILE) as path:
        path.write_text(json.dumps(_METADATA) + "\n", encoding="utf-8")
    return ExportResult(FIFTYONE, counts.n_rows, counts.n_images, counts.digest), n_left_out


def format_sample(row: ExportRow, path_by_id: Mapping[str, str]) -> str | None:
    """Return a pair as a line of JSON; None if it has no image."""
    if not row.images:
        return None
    image, *more_images = row.images
    columns = build_pair_columns(row)
    sample: dict[str, Any] = {
        "filepath": path_by_id[image.image_id],
        "tags": ["kept" if columns["keep"] else "dropped"],
        "metadata": {
            "_cls": "ImageMetadata",
            "size_bytes": image.size,
            "mime_type": f"image/{image.format.lower()}",
            "width": image.width,
            "height": image.height,
        },
        "verdict": {
            "_cls": "Classification",
            "label": "kept" if columns["keep"] else columns["drop_reason"] or "dropped",
            "confidence": columns["p_yes"],
        },
        "rewrite_id": row.row_id,
        "more_images": [path_by_id[more.image_id] for more in more_images],
        # A column that is null is left out: the type of a field comes from its values.
        **{name: value for name, value in columns.items() if value is not None},
    }
    return json.dumps(sample, ensure_ascii=False)
