"""Assets `export/llava_json` and `export/dataset_card`: the mixtures in formats for other trainers."""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
from collections import Counter
from itertools import zip_longest

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import read_first_mixture_rows, summarize_composition
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import render_markdown_table, render_preview
from mvl_assets.orchestration.resources import LakeResource

EXPORT_KEY, CARD_KEY = dg.AssetKey(["export", "llava_json"]), dg.AssetKey(["export", "dataset_card"])
FILES_CHECK, LICENSES_CHECK = "files_complete", "licenses_known"
PREVIEWED_ROWS_PER_STAGE = 2
UPSTREAM_KEYS = [dg.AssetKey(["mixture", stage]) for stage in TRAINING_STAGES]


@dg.asset(
    key=EXPORT_KEY,
    group_name="export",
    deps=UPSTREAM_KEYS,
    description="The three mixtures as LLaVA training JSON with their images, as MAmmoTH-VL released its data; large"
    " ones in shards of JSON lines with a tar of images each (`export_layout` in the profile). `mvl export` writes"
    " other formats.",
    kinds={"json"},
    owners=asset_keys.OWNERS,
    code_version=asset_keys.compute_code_version(asset_keys.load_active_profile().export_layout),
    check_specs=[
        dg.AssetCheckSpec(
            FILES_CHECK,
            asset=EXPORT_KEY,
            description="Read again, the files have an entry for each row of the mixtures, a marker for each image, and"
            " the images.",
        )
    ],
)
def llava_json(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """Write every mixture as LLaVA training JSON."""
    from mvl_assets.export.export_folder import ExportFolder
    from mvl_assets.export.export_stage import ExportOptions, choose_executor, export_stage
    from mvl_assets.export.formats.registry import get_format
    from mvl_assets.export.verify import check_export

    folder = ExportFolder(load_settings().export_root).join("llava_json")
    profile = asset_keys.load_active_profile()
    options = ExportOptions(layout=profile.export_layout)
    executor = choose_executor(profile.executor, folder)
    exports = [
        export_stage(lake.lake, stage, folder, get_format("llava_json"), options, executor) for stage in TRAINING_STAGES
    ]
    problems = [problem for export in exports for problem in check_export(folder, export)]
    rows_by_export = [
        [{**row, "file": export.name} for row in read_first_mixture_rows(lake.lake, stage, PREVIEWED_ROWS_PER_STAGE)]
        for stage, export in zip(TRAINING_STAGES, exports, strict=True)
    ]
    # The first row of each file comes first: a preview shows a few images only.
    first_rows = [row for rows in zip_longest(*rows_by_export) for row in rows if row is not None]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(compute_digest(*(e.digest for e in exports))),
        metadata={
            metadata_keys.ROW_COUNT: sum(e.rows for e in exports),
            metadata_keys.URI: folder.uri,
            metadata_keys.FILES: render_markdown_table(
                [{"file": e.name, "rows": e.rows, "images": e.images} for e in exports]
            ),
            metadata_keys.PREVIEW: render_preview(lake.lake, first_rows, ["file", "row_id", "question", "answer"]),
        },
        check_results=[
            dg.AssetCheckResult(
                asset_key=EXPORT_KEY,
                check_name=FILES_CHECK,
                passed=not problems,
                metadata={
                    metadata_keys.ROWS: sum(e.rows for e in exports),
                    metadata_keys.PROBLEMS: render_markdown_table([{"problem": problem} for problem in problems]),
                },
            )
        ],
    )


@dg.asset(
    key=CARD_KEY,
    code_version=asset_keys.compute_code_version(
        [(m.name, m.license) for m in asset_keys.load_active_profile().models.values()]
    ),
    group_name="export",
    deps=UPSTREAM_KEYS,
    description="Contents of the mixtures by category, source and licence, as a dataset card of the Hugging Face hub.",
    kinds={"markdown"},
    owners=asset_keys.OWNERS,
    check_specs=[
        dg.AssetCheckSpec(
            LICENSES_CHECK, asset=CARD_KEY, description="The licence of every source in the mixtures is known."
        )
    ],
)
def dataset_card(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """Write the dataset card."""
    from mvl_assets.export.dataset_card import render_dataset_card
    from mvl_assets.export.description import CARD, list_llava_configs
    from mvl_assets.export.export_folder import ExportFolder
    from mvl_assets.judging.agreement import describe_agreement

    folder = ExportFolder(load_settings().export_root)
    profile = asset_keys.load_active_profile()
    configs = list_llava_configs(lake.lake, profile.export_layout, EXPORT_KEY.path[-1])
    text = render_dataset_card(lake.lake, profile, configs, agreement=describe_agreement(lake.lake))
    with folder.write_file(CARD) as path:
        path.write_text(text, encoding="utf-8")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(compute_digest(text)),
        metadata={metadata_keys.URI: f"{folder.uri}/{CARD}", metadata_keys.CARD: _render_card(text)},
        check_results=[build_licenses_result(lake.lake)],
    )


def _render_card(text: str) -> dg.MetadataValue:
    """Return the card as the page shows it: without its front matter, and names may be broken in narrow columns."""
    _, _, body = text.removeprefix("---\n").partition("---\n")
    return dg.MetadataValue.md(body.replace("_", "_\u200b"))


def build_licenses_result(lake: Lake) -> dg.AssetCheckResult:
    """Return a warning that names the sources whose rows are in a mixture under an unknown licence."""
    rows_by_source = Counter[str]()
    for stage in TRAINING_STAGES:
        for row in summarize_composition(lake, stage):
            if row["license"] is None:
                rows_by_source[row["source"]] += row["n"]
    sources = [{"source": source, "rows": n_rows} for source, n_rows in rows_by_source.most_common()]
    return dg.AssetCheckResult(
        asset_key=CARD_KEY,
        check_name=LICENSES_CHECK,
        passed=not sources,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={metadata_keys.ROWS: rows_by_source.total(), metadata_keys.SOURCES: render_markdown_table(sources)},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return both export assets."""
    return dg.Definitions(assets=[llava_json, dataset_card])
