"""What lies beside the files of an export: the card and, for Parquet, Croissant metadata."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from mvl_assets.common.licenses import combine
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import Profile
from mvl_assets.export import croissant
from mvl_assets.export.dataset_card import CardConfig, render_dataset_card, resolve_title
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, Layout, has_shards
from mvl_assets.export.formats.export_format import ExportFormat
from mvl_assets.export.formats.json_formats import LlavaJsonFormat
from mvl_assets.export.formats.table_formats import TableFormat
from mvl_assets.export.row_reader import ImageForm
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.provenance_counts import count_by_license

CARD = "README.md"
_IMAGE_NOTES: dict[ImageForm, str] = {
    "raw": "Images are the bytes of the sources' files.",
    "standard": "Images are standardised: upright RGB within 224 to 4,096 px and 7:1, as models get them.",
}


def describe_export(
    lake: Lake,
    profile: Profile,
    folder: ExportFolder,
    format_: ExportFormat,
    options: ExportOptions,
    agreement: str = "",
) -> list[CardConfig]:
    """Write the card of an export, and its Croissant metadata; return its configurations."""
    configs = list_configs(lake, folder, format_, options.mixture_filter)
    write_description(lake, profile, folder, configs, options, agreement)
    return configs


def write_description(
    lake: Lake,
    profile: Profile,
    folder: ExportFolder,
    configs: Sequence[CardConfig],
    options: ExportOptions,
    agreement: str = "",
    file_note: str = "",
) -> None:
    """Write the card, and Croissant metadata if there are tables among the configurations.

    `agreement` is what the card says of judge and people, `file_note` of the files.
    """
    note = f"{_IMAGE_NOTES[options.image_form]} {file_note}".rstrip()
    with folder.write_file(CARD) as path:
        text = render_dataset_card(lake, profile, configs, note, options.mixture_filter, agreement)
        path.write_text(text, encoding="utf-8")
    if any(config.schema is not None for config in configs):
        licenses = combine(
            count["license"]
            for count in count_by_license(lake, [config.name for config in configs], options.mixture_filter)
        )
        title = resolve_title(lake, [config.name for config in configs])
        text = croissant.render_croissant(configs, licenses, dt.datetime.now(dt.UTC).date().isoformat(), title)
        with folder.write_file(croissant.FILE_NAME) as path:
            path.write_text(text, encoding="utf-8")


def list_configs(
    lake: Lake, folder: ExportFolder, format_: ExportFormat, mixture_filter: MixtureFilter | None = None
) -> list[CardConfig]:
    """Return a configuration for each training stage whose files are in the folder."""
    configs = []
    for stage in TRAINING_STAGES:
        data_files = next((p for p in format_.list_data_files(stage) if folder.matches_any(p)), None)
        if data_files is not None:
            schema = format_.schema if isinstance(format_, TableFormat) and format_.has_parquet_files else None
            n_bytes = None if schema is None else folder.measure_folder(stage)
            n_rows = sum(count["rows"] for count in count_by_license(lake, [stage], mixture_filter))
            configs.append(CardConfig(stage, data_files, n_rows, n_bytes, schema, format_.loads_with_datasets))
    return configs


def list_llava_configs(lake: Lake, layout: Layout, folder_name: str) -> list[CardConfig]:
    """Return a configuration for each mixture as the asset `export/llava_json` writes it.

    Args:
        lake: The lake.
        layout: The layout in the profile.
        folder_name: The export's folder, beside the card.
    """
    configs = []
    for stage in TRAINING_STAGES:
        if n_rows := lake.get_table(f"mixture/{stage}").count():
            file, shards = LlavaJsonFormat().list_data_files(stage)
            data_files = shards if has_shards(n_rows, layout) else file
            configs.append(CardConfig(stage, f"{folder_name}/{data_files}", n_rows))
    return configs
