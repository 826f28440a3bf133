"""The dataset card: what the mixtures hold, by category, source and licence, in Markdown with front matter."""

from __future__ import annotations

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import Profile
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import summarize_composition

UNKNOWN_LICENSE = "unknown"


def render_dataset_card(lake: Lake, profile: Profile) -> str:
    """Return the card's text: licences per source, and the terms of the models that rewrote rows."""
    lines = ["---", "task_categories:", "- visual-question-answering", "- image-text-to-text", "---", ""]
    lines += ["# Mixtures", "", f"Made with profile `{profile.name}`; pairs were kept by `{profile.keep_rule}`.", ""]
    for stage in TRAINING_STAGES:
        rows = summarize_composition(lake, stage)
        n_rows = sum(r["n"] for r in rows)
        lines += [
            f"## {stage}: {n_rows:,} rows",
            "",
            "| category | source | rows | rewritten | licence |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['category']} | {r['source']} | {r['n']:,} | {r['rewritten']:,} | {r['license'] or UNKNOWN_LICENSE} |"
            for r in rows
        ]
        lines.append("")
    lines += ["## Models", ""]
    used_models = [(role, profile.get_model(role)) for role in ("caption", "rewrite")]
    for role, model in [*used_models, *(("judge", model) for model in profile.judges.values())]:
        lines.append(f"- {role}: {model.name} ({model.revision}), output terms: {model.license or UNKNOWN_LICENSE}")
    catalog = load_catalog()
    lines += [
        "",
        "## Sources",
        "",
        f"{len(catalog)} sources are declared; a licence that was not read is `{UNKNOWN_LICENSE}`.",
        "",
    ]
    return "\n".join(lines)
