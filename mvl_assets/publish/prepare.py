"""Writes what a publication has: a folder for each format, the card and Croissant over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mvl_assets.config.profile import Profile
from mvl_assets.execution.executor import Executor
from mvl_assets.export.dataset_card import CardConfig
from mvl_assets.export.description import list_configs, write_description
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, ExportResult, export_stage
from mvl_assets.export.formats.export_format import ExportFormat
from mvl_assets.judging.agreement import describe_agreement
from mvl_assets.lake.lake import Lake


def prepare_publication(
    lake: Lake,
    profile: Profile,
    folder: ExportFolder,
    formats: Sequence[ExportFormat],
    stages: Sequence[str],
    options: ExportOptions,
    executor: Executor,
    on_result: Callable[[ExportFormat, ExportResult], None],
) -> None:
    """Write mixtures in formats to the folder; what is there and still right is kept.

    Readers that go by the card get the first format of Parquet, which Croissant describes too, or else the first that
    `datasets` can read.

    Args:
        lake: The lake.
        profile: The profile that the mixtures were made with.
        folder: Where; each format is a folder in it.
        formats: The formats.
        stages: Training stages of the mixtures.
        options: How the files are, and which rows are taken.
        executor: Writes the shards.
        on_result: Told of each mixture that is written.
    """
    configs: list[CardConfig] = []
    for format_ in formats:
        format_folder = folder.join(format_.name)
        for stage in stages:
            on_result(format_, export_stage(lake, stage, format_folder, format_, options, executor))
        own_configs = list_configs(lake, format_folder, format_, options.mixture_filter)
        if _get_reader_rank(own_configs) > _get_reader_rank(configs):
            configs = [replace(config, data_files=f"{format_.name}/{config.data_files}") for config in own_configs]
    note = "Formats: " + ", ".join(f"`{format_.name}/` ({format_.description})" for format_ in formats) + "."
    write_description(lake, profile, folder, configs, options, describe_agreement(lake), note)


def _get_reader_rank(configs: Sequence[CardConfig]) -> tuple[bool, bool]:
    """Return what readers can do with a format by its card: know its columns (Parquet), and load it with `datasets`."""
    return any(config.schema is not None for config in configs), any(config.loads_with_datasets for config in configs)
