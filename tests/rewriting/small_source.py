"""A drawn source in a lake of its own, for the tests of rewriting and judging."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.sample_facts import get_image_group_id
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import PROMPTS_DIR
from mvl_assets.judging.judge import JudgeStage
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, SAMPLES
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.model_stage.plan import RequestPlan, plan_stage
from mvl_assets.rewriting.rewrite import RewriteStage


def source_of(family: str, category: str, slug: str = "drawn") -> SourceSpec:
    fields = {"title": "Drawn", "group": "B", "modality": "single_image", "format": "llava_json"}
    return SourceSpec.model_validate({"slug": slug, "category": category, "family": family, **fields})


MATH = source_of("math", "code_math")
CHART = source_of("chart", "chart")


def profile(
    *, supports_images: bool = True, rule: str | None = "all_yes", revision: str = "1", **executor: Any
) -> Profile:
    model = {
        "name": "fake",
        "revision": revision,
        "supports_images": supports_images,
        "base_urls": ["http://127.0.0.1:9/v1"],
    }
    roles = dict.fromkeys(("caption", "rewrite", "judge"), "one")
    return Profile.model_validate(
        {
            "name": "test",
            "models": {"one": model},
            "score_rows": 0,
            "roles": roles,
            "prompts": "small",
            "keep": {"rule": rule},
            "executor": executor,
        }
    )


def make_image(number: int) -> ImageRow:
    buffer = io.BytesIO()
    Image.new("RGB", (240, 240), (number % 256, 90, 30)).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImageRow(compute_digest(data), data, "PNG", 240, 240, 1, "RGB", None)


def put(lake: Lake, source: SourceSpec, numbers: Iterable[int], **changed: Any) -> None:
    """Makes samples of these numbers all there is of the source.

    `changed` overrides columns of every sample; a callable gets the sample's number.
    """
    numbers = list(numbers)
    pictures = [make_image(n) for n in numbers]
    lake.get_images(source.slug).insert(pictures)
    samples, rows = [], []
    for number, shown in zip(numbers, pictures, strict=True):
        key = compute_digest(source.slug, number)
        turns = [
            {"from": "human", "value": f"<image>\nWhat is {number} plus 1?"},
            {"from": "gpt", "value": str(number + 1)},
        ]
        sample = {
            "version_id": compute_digest(key, 1),
            "sample_id": key,
            "source": source.slug,
            "revision": 1,
            "withdrawn": False,
            "conversations": turns,
            "image_ids": [shown.image_id],
        } | {name: value(number) if callable(value) else value for name, value in changed.items()}
        # By which a publish knows a sample that has changed.
        sample["content_hash"] = compute_digest(sample["conversations"], sample["image_ids"])
        sample["image_properties"] = [{"name": None, **asdict(shown.properties)} for _ in sample["image_ids"]]
        samples.append(sample)
        rows.append(
            {
                "sample_id": key,
                "version_id": sample["version_id"],
                "source": source.slug,
                "category": source.category,
                "group": "B",
                "family": source.family,
                "image_group_id": get_image_group_id(key, sample["image_ids"]),
                "n_turns": len(sample["conversations"]),
            }
        )
    lake.get_table("samples").publish([pa.Table.from_pylist(samples, schema=SAMPLES.columns)], source.slug)
    category = lake.get_table(f"category/{source.category}")
    category.publish([pa.Table.from_pylist(rows, schema=CATEGORY.columns)], source.slug)


def list_rows(lake: Lake, table: str) -> list[dict[str, Any]]:
    return sorted(lake.get_table(table).iter_rows(), key=lambda r: r["row_hash"])


def plan_rewrite(lake: Lake, source: SourceSpec, profile: Profile, **options: Any) -> RequestPlan:
    (plan,) = plan_stage(lake, RewriteStage(lake, source, profile, **options))
    return plan


def plan_judges(lake: Lake, source: SourceSpec, profile: Profile, **options: Any) -> list[RequestPlan]:
    """One plan per judge."""
    return plan_stage(lake, JudgeStage(lake, source, profile, **options))


def prompt_folder(folder: Path, **edits: tuple[str, str]) -> Path:
    """A copy of the shipped prompts for small models. `edits` maps a file's stem to (old, new)."""
    copy = folder / f"prompts-{len(list(folder.glob('prompts-*')))}"
    shutil.copytree(PROMPTS_DIR / "small", copy)
    for stem, (old, new) in edits.items():
        path = copy / f"{stem}.md"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return copy
