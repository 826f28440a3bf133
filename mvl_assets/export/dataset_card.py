"""The dataset card: Markdown with the front matter that the Hugging Face hub reads, and how the rows came to be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from mvl_assets.common.licenses import combine, describe_terms, to_hub_license, to_spdx
from mvl_assets.common.markdown import escape_cell, format_markdown_table
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import load_full_catalog
from mvl_assets.config.profile import ModelProfile, Profile
from mvl_assets.config.project import load_project
from mvl_assets.config.prompts import Prompt, compute_judging_hash, get_judge_prompts, get_probe_prompt, load_prompts
from mvl_assets.config.strict_yaml import StrictModel
from mvl_assets.export.formats.table_schemas import IMAGE
from mvl_assets.export.row_terms import list_refused_rows
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.provenance_counts import (
    count_by_judging_prompt,
    count_by_language,
    count_by_license,
    count_by_prompt,
    count_contaminated,
    count_duplicates_by_rule,
    count_kept_by_source,
    list_table_versions,
)
from mvl_assets.lake_queries.summaries import count_rejects_by_reason, summarize_categories
from mvl_assets.lake_queries.views import summarize_composition

UNKNOWN_LICENSE = "unknown"
PAPER_TITLE, OTHER_TITLE = "MAmmoTH-VL mixtures, rebuilt with mvl", "Instruction data made with mvl"
MIN_LANGUAGE_SHARE = 0.01
"""Share of the rows whose language is known below which a language is not named: short texts are taken for others."""

NO_LANGUAGE = "zxx"
"""ISO 639's code of texts in no language, such as formulas: no language of a data set."""

# (rows below which it holds, the hub's word for it)
_SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)


@dataclass(frozen=True, slots=True)
class CardConfig:
    """One configuration (subset) of the data set: the files of a training stage.

    Attributes:
        name: Its name.
        data_files: Pattern of its files, below the card's folder.
        n_rows: Its rows.
        n_bytes: Bytes of its files; None where they are not counted.
        schema: Its columns; None for files whose readers find them out.
        loads_with_datasets: Whether it is among the card's configurations, which `datasets` loads.
    """

    name: str
    data_files: str
    n_rows: int
    n_bytes: int | None = None
    schema: pa.Schema | None = None
    loads_with_datasets: bool = True


def render_dataset_card(
    lake: Lake,
    profile: Profile,
    configs: Sequence[CardConfig],
    image_note: str = "",
    mixture_filter: MixtureFilter | None = None,
    agreement: str = "",
) -> str:
    """Return the card's text.

    Args:
        lake: The lake.
        profile: The profile that the mixtures were made with.
        configs: The files beside the card, by training stage.
        image_note: In which form the images are, in a sentence.
        mixture_filter: Which rows of the mixtures were taken; None for all.
        agreement: How far the judge agrees with people, in Markdown; empty if nobody has labelled pairs.
    """
    stages = [stage for stage in TRAINING_STAGES if stage in {config.name for config in configs}] or TRAINING_STAGES
    composition = {stage: summarize_composition(lake, stage, mixture_filter) for stage in stages}
    license_counts = count_by_license(lake, stages, mixture_filter)
    title = resolve_title(lake, stages)
    sections = [
        _render_front_matter(configs, license_counts, title, _list_languages(lake, stages, mixture_filter)),
        f"# {title}\n\nMade with the profile `{profile.name}`. {image_note}".rstrip(),
        _render_licenses(license_counts),
        *([] if mixture_filter is None else [_render_refused_rows(lake, stages, mixture_filter)]),
        *(_render_stage(stage, rows) for stage, rows in composition.items()),
        _render_flow(lake, profile, agreement),
        _render_exclusions(lake, profile),
        _render_models(profile),
        _render_prompts(lake, profile),
        "## Tables\n\nVersions of the Lance tables that this was made from.\n\n"
        + _format_table(list_table_versions(lake)),
    ]
    return "\n\n".join(sections) + "\n"


def resolve_title(lake: Lake, stages: Sequence[str]) -> str:
    """Return what the data is called: the project's title, or what all rows of the mixtures are from."""
    if (title := load_project().title) is not None:
        return title
    catalog = load_full_catalog()
    slugs = {row["source"] for stage in stages for row in summarize_composition(lake, stage)}
    is_of_paper = bool(slugs) and all(slug in catalog.specs and catalog.is_in_paper(slug) for slug in slugs)
    return PAPER_TITLE if is_of_paper else OTHER_TITLE


def _list_languages(lake: Lake, stages: Sequence[str], mixture_filter: MixtureFilter | None) -> list[str]:
    """Return the languages of the rows, most frequent first."""
    rows_by_language = {
        count["language"]: count["rows"]
        for count in count_by_language(lake, stages, mixture_filter)
        if count["language"] not in (None, NO_LANGUAGE)
    }
    min_rows = MIN_LANGUAGE_SHARE * sum(rows_by_language.values())
    return [language for language, n_rows in rows_by_language.items() if n_rows >= min_rows]


def describe_feature(name: str, type_: pa.DataType) -> dict[str, Any]:
    """Return a column as the front matter's `dataset_info` writes it."""
    return {"name": name, **_describe_type(type_)}


def _describe_type(type_: pa.DataType) -> dict[str, Any]:
    if type_ == IMAGE:
        return {"dtype": "image"}
    if pa.types.is_list(type_):
        inner = _describe_type(type_.value_type)
        return {"list": inner.get("dtype", inner.get("struct", inner))}
    if pa.types.is_struct(type_):
        return {"struct": [describe_feature(field.name, field.type) for field in type_]}
    return {"dtype": {"double": "float64"}.get(str(type_), str(type_))}


def _render_front_matter(
    configs: Sequence[CardConfig], license_counts: Sequence[Mapping[str, Any]], title: str, languages: Sequence[str]
) -> str:
    n_rows = sum(count["rows"] for count in license_counts)
    fields: dict[str, Any] = {
        "pretty_name": title,
        "license": to_hub_license([count["license"] for count in license_counts]),
        **({"language": list(languages)} if languages else {}),
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "size_categories": [next((word for limit, word in _SIZE_CATEGORIES if n_rows < limit), "n>1T")],
        "annotations_creators": ["machine-generated"],
        "source_datasets": ["extended"],
        "tags": ["multimodal", "vision-language", "instruction-tuning", "synthetic", *_list_own_tags(title), "mvl"],
    }
    if fields["license"] == "other":
        fields |= {"license_name": "mixed", "license_link": "README.md"}
    loadable = [config for config in configs if config.loads_with_datasets]
    if loadable:
        fields["configs"] = [
            {"config_name": config.name, "data_files": [{"split": "train", "path": config.data_files}]}
            for config in loadable
        ]
        described = [_describe_config(config) for config in loadable if config.schema is not None]
        fields |= {"dataset_info": described} if described else {}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120)}---"


def _list_own_tags(title: str) -> list[str]:
    return ["mammoth-vl"] if title == PAPER_TITLE else []


def _describe_config(config: CardConfig) -> dict[str, Any]:
    assert config.schema is not None
    split: dict[str, Any] = {"name": "train", "num_examples": config.n_rows}
    sizes: dict[str, Any] = {}
    if config.n_bytes is not None:
        split["num_bytes"] = config.n_bytes
        sizes = {"download_size": config.n_bytes, "dataset_size": config.n_bytes}
    features = [describe_feature(field.name, field.type) for field in config.schema]
    return {"config_name": config.name, "features": features, "splits": [split], **sizes}


def _render_licenses(license_counts: Sequence[Mapping[str, Any]]) -> str:
    licenses = [count["license"] for count in license_counts]
    table = [
        {
            "declared licence": count["license"] or UNKNOWN_LICENSE,
            "SPDX": to_spdx(count["license"]),
            "sources": count["sources"],
            "rows": count["rows"],
        }
        for count in license_counts
    ]
    terms = "\n".join(f"- {escape_cell(sentence, 2000)}" for sentence in describe_terms(licenses))
    return "\n\n".join(
        part
        for part in (
            "## Licence\n\nThe rows are under the licences of their sources, and all of them apply to the whole:\n"
            f"`{combine(licenses)}`.",
            terms,
            "Rewritten rows are also under the output terms of the model that wrote them (below). This follows from"
            " what the sources declare, is no legal advice, and the column `license` of every row says its own.",
            _format_table(table),
        )
        if part
    )


def _render_refused_rows(lake: Lake, stages: Sequence[str], mixture_filter: MixtureFilter) -> str:
    lines = [
        f"- {refused.n_rows:,} rows: {escape_cell(refused.reason, 2000)}"
        for refused in list_refused_rows(lake, stages, mixture_filter)
    ]
    start = f"Only rows whose terms permit the use `{mixture_filter.name}` are here."
    return "\n".join([f"{start} Left out of the mixtures were:\n", *lines]) if lines else start


def _render_stage(stage: str, rows: Sequence[Mapping[str, Any]]) -> str:
    table = [
        {
            "category": row["category"],
            "source": row["source"],
            "rows": row["n"],
            "rewritten": row["rewritten"],
            "licence": row["license"] or UNKNOWN_LICENSE,
        }
        for row in rows
    ]
    return f"## {stage}: {sum(row['n'] for row in rows):,} rows\n\n{_format_table(table)}"


def _render_flow(lake: Lake, profile: Profile, agreement: str) -> str:
    summaries = summarize_categories(lake)
    flow = [
        {
            "category": summary.category,
            "samples in": summary.n_samples,
            "pairs rewritten": summary.n_rewritten,
            "judged": summary.n_judged,
            "kept": summary.n_kept,
            "dropped, by reason": ", ".join(f"{reason} {n:,}" for reason, n in summary.drop_reasons.most_common()),
        }
        for summary in summaries
    ]
    rejects = [
        {"stage": stage, "reason": reason, "rows": n}
        for (stage, reason), n in sorted(count_rejects_by_reason(lake).items())
    ]
    kept = [
        {
            "category": row["category"],
            "source": row["source"],
            "judged": row["judged"],
            "kept": row["kept"],
            "share": f"{row['kept'] / row['judged']:.1%}",
        }
        for row in count_kept_by_source(lake)
    ]
    return "\n\n".join(
        [
            "## How the rows came to be",
            f"Pairs were kept by the rule `{profile.keep.rule}`."
            + ("" if agreement else " No person has labelled any: how far the judge agrees with people is not known."),
            *([agreement] if agreement else []),
            _format_table(flow),
            "Rows that were refused before that, by stage and reason:",
            _format_table(rejects),
            "Share of the judged pairs that was kept, by source:",
            _format_table(kept),
        ]
    )


def _render_exclusions(lake: Lake, profile: Profile) -> str:
    n_duplicates = lake.get_table("curation/duplicates").count()
    mixture = profile.mixture
    near_rules = profile.near_duplicate_rules
    return "\n\n".join(
        [
            "## Duplicates and benchmarks",
            f"{n_duplicates:,} samples are duplicates of others, which "
            + ("were taken instead." if mixture.drop_duplicates and not profile.paper_parity else "were not left out."),
            _format_table(count_duplicates_by_rule(lake)),
            "Near duplicates were not looked for."
            if near_rules is None
            else f"Thresholds of near duplicates (`duplicates` of the profile): {_format_thresholds(near_rules)}.",
            "Samples that touch an item of a benchmark or a held-out question"
            + (
                ", and how many of them no mixture took:"
                if mixture.drop_contaminated and not profile.paper_parity
                else "; mixtures took them all the same, `left_out` says what they could leave out:"
            ),
            _format_table(count_contaminated(lake)),
            f"Thresholds (`contamination` of the profile): {_format_thresholds(profile.contamination)}. Left out are"
            f" hits of the kinds {', '.join(f'`{kind}`' for kind in profile.contamination.removes) or 'none'}.",
        ]
    )


def _format_thresholds(rules: StrictModel) -> str:
    """Return the numbers among the rules that decide about samples, not about the checks of a run (`max_removed`)."""
    thresholds = {
        name: value
        for name, value in rules
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("max_removed", "max_hits")
    }
    return ", ".join(f"`{name}` {value:g}" for name, value in thresholds.items())


def _render_models(profile: Profile) -> str:
    models: dict[str, ModelProfile] = {role: profile.get_model(role) for role in sorted(profile.roles)}
    models |= {f"judge {number}": profile.models[name] for number, name in enumerate(profile.judging.panel, 2)}
    if profile.prober is not None:
        models["text-only probe"] = profile.prober
    rows = [
        {
            "role": role,
            "model": model.name,
            "revision": model.revision,
            "sees images": model.supports_images,
            "output terms": model.license or UNKNOWN_LICENSE,
        }
        for role, model in models.items()
    ]
    panel = f"The judges decide by the rule `{profile.judging.panel_rule}`." if profile.judging.panel else ""
    return "\n\n".join(part for part in ("## Models", _format_table(rows), panel) if part)


def _render_prompts(lake: Lake, profile: Profile) -> str:
    prompts = load_prompts(profile=profile)
    rewriting_rows, judging_rows = count_by_prompt(lake), count_by_judging_prompt(lake)
    template_by_hash = {prompt.hash: [prompt.template] for prompt in prompts.values()}
    heading_by_hash = {row["prompt_hash"]: row["prompt"] for row in rewriting_rows}
    for row in judging_rows:
        criteria = _list_judging_prompts(profile, prompts, row["family"])
        judging_hash = compute_judging_hash(criteria, *_get_probe(profile, prompts))
        template_by_hash[judging_hash] = [prompt.template for prompt in criteria]
        heading_by_hash.setdefault(row["prompt_hash"], "judge")
    parts = ["## Prompts", _format_table(rewriting_rows)]
    if judging_rows:
        parts += ["Judges were asked with these, once for each criterion:", _format_table(judging_rows)]
    for prompt_hash, heading in heading_by_hash.items():
        parts.append(f"### {escape_cell(heading)} ({(prompt_hash or 'no hash')[:12]})")
        templates = template_by_hash.get(prompt_hash)
        parts += ["The text has been changed since."] if templates is None else map(_quote_code, templates)
    return "\n\n".join(parts)


def _list_judging_prompts(profile: Profile, prompts: Mapping[str, Prompt], family: str) -> list[Prompt]:
    return get_judge_prompts(prompts, family, reference=profile.gives_reference)


def _get_probe(profile: Profile, prompts: Mapping[str, Prompt]) -> tuple[Prompt | None, ModelProfile | None]:
    return (None, None) if profile.prober is None else (get_probe_prompt(prompts), profile.prober)


def _format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table whose names and hashes can be copied."""
    return format_markdown_table(rows, breaks_words=False)


def _quote_code(text: str) -> str:
    """Return a text as a block of code, whatever fences are in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.strip()}\n{fence}"
