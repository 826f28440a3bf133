"""The dataset card: what a mixture holds, by category, source and licence, as Markdown with the hub's front matter."""

from __future__ import annotations

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import Profile
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import STAGES
from mvl_assets.lake_queries.views import composition

UNKNOWN = "unknown"


def dataset_card(lake: Lake, profile: Profile) -> str:
    """The card's text. Licences are per source; the models' own terms stand beside them for rewritten rows."""
    lines = ["---", "task_categories:", "- visual-question-answering", "- image-text-to-text", "---", ""]
    lines += ["# Mixtures", "", f"Made with profile `{profile.name}`; pairs were kept by `{profile.keep.rule}`.", ""]
    for stage in STAGES:
        rows = composition(lake, stage)
        total = sum(r["n"] for r in rows)
        lines += [
            f"## {stage}: {total:,} rows",
            "",
            "| category | source | rows | rewritten | licence |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['category']} | {r['source']} | {r['n']:,} | {r['rewritten']:,} | {r['license'] or UNKNOWN} |"
            for r in rows
        ]
        lines.append("")
    lines += ["## Models", ""]
    for role in ("caption", "rewrite", "judge"):
        model = profile.model_for(role)
        lines.append(f"- {role}: {model.name} ({model.revision}), output terms: {model.license or UNKNOWN}")
    known = load_catalog()
    lines += [
        "",
        "## Sources",
        "",
        f"{len(known)} sources are declared; a licence that was not read is `{UNKNOWN}`.",
        "",
    ]
    return "\n".join(lines)
