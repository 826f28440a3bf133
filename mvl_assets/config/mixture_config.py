"""What the mixtures take: rows per training stage, shares of categories and sources, caps, strata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.project import load_project
from mvl_assets.config.strict_yaml import StrictModel

ALIGNMENT_CATEGORY = "alignment"
MULTI_IMAGE_CATEGORIES = ("multi_image", "video")

PAPER_SHARES = {
    "general": 0.154,
    "ocr": 0.137,
    "chart": 0.154,
    "caption": 0.109,
    "domain": 0.089,
    "code_math": 0.083,
    "detection": 0.032,
    "multi_image": 0.058,
    "video": 0.025,
    "language": 0.160,
}
"""Shares of the categories in the last two training stages (paper, Figure 3)."""

Share = Annotated[float, Field(ge=0, le=1)]


class SourceMix(StrictModel):
    """What a mixture takes of one source.

    Attributes:
        share: Its share of its category's rows; null: what its size gives it of what such shares of others leave.
        max_rows: Most rows of it in a training stage, repetitions included.
    """

    share: Share | None = None
    max_rows: int | None = Field(default=None, ge=0)


class StrataConfig(StrictModel):
    """A column by whose values the rows of a source are chosen evenly, originals and rewritten rows apart.

    Attributes:
        column: A column of `judged/*`, `rewritten/*` or `category/*`, such as `p_yes`, `task_type` or `n_chars`. Rows
            without a value come last.
        edges: Of a column of numbers: where one stratum ends and the next begins. Without edges every value is one.
        shares: Of the strata between the edges, lowest first, relative to each other; a stratum of share 0 is left
            out. Default: equal.
    """

    column: str
    edges: list[float] = Field(default_factory=list)
    shares: list[Share] = Field(default_factory=list)

    @model_validator(mode="after")
    def _validate_edges(self) -> StrataConfig:
        if not all(map(math.isfinite, self.edges)) or sorted(set(self.edges)) != self.edges:
            raise ValueError(f"edges {self.edges} have to be finite and to rise")
        if self.shares and (len(self.shares) != len(self.edges) + 1 or not self.edges):
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) + 1} strata; shares has {len(self.shares)}"
            )
        if self.shares and not any(self.shares):
            raise ValueError("all shares are 0: nothing is left")
        return self


class MixtureConfig(StrictModel):
    """Rows per training stage and how they are chosen. The defaults are the paper's (§2.3, Table 1, Figure 3)."""

    seed: int = 0
    alignment: int = Field(default=558_000, ge=0)
    single_image: int = Field(default=10_000_000, ge=0)
    one_vision: int = Field(default=2_000_000, ge=0)
    # Share of single-image rows in one_vision, none of which single_image used; the rest is multi-image and video.
    one_vision_single_share: Share = 0.5
    rewritten_share: Share = 0.7
    # Shares of the categories in single_image and one_vision, relative to each other.
    shares: dict[str, Share] = Field(default_factory=lambda: dict(PAPER_SHARES))
    # Within a category: shares and caps of sources by slug, and the cap of all others.
    sources: dict[str, SourceMix] = Field(default_factory=dict)
    max_source_rows: int | None = Field(default=None, gt=0)
    # A source without a share gets one in proportion to n^(1/temperature), n being its rows: 1 is by size, and the
    # higher, the more equal.
    temperature: float = Field(default=1.0, gt=0, le=1e6)
    strata: StrataConfig | None = None
    # Rows are repeated where a source, or a category, has too few.
    upsample: bool = False
    # What the checks of a mixture do where shares are missed by more than `tolerance` (and a row).
    missed_shares: Literal["warn", "block"] = "warn"
    tolerance: Share = 0.02
    drop_duplicates: bool = True
    drop_contaminated: bool = True

    @model_validator(mode="after")
    def _validate_shares(self) -> MixtureConfig:
        if unknown_categories := sorted(set(self.shares) - set(PAPER_SHARES) - set(load_project().categories)):
            raise ValueError(
                f"shares of {', '.join(unknown_categories)}: not categories of a mixture; declare own ones in mvl.yaml"
            )
        single_image_shares, multi_image_shares = self._split_shares()
        if self.single_image and not any(single_image_shares.values()):
            raise ValueError("nothing is left for single_image: give a single-image category a share, or set it to 0")
        n_single_image = round(self.one_vision * self.one_vision_single_share)
        if n_single_image and not any(single_image_shares.values()):
            raise ValueError(
                f"nothing is left for {n_single_image:,} rows of one_vision: give a single-image category a share, or"
                " set one_vision_single_share to 0"
            )
        if n_single_image < self.one_vision and not any(multi_image_shares.values()):
            raise ValueError(
                f"nothing is left for {self.one_vision - n_single_image:,} rows of one_vision: give a category of"
                " several images a share, or set one_vision_single_share to 1, or one_vision to 0"
            )
        return self

    def compute_targets(self, stage: TrainingStage | str) -> dict[str, int]:
        """Return the target rows of each category in a training stage."""
        if stage == "alignment":
            return {ALIGNMENT_CATEGORY: self.alignment}
        single_image_shares, multi_image_shares = self._split_shares()
        if stage == "single_image":
            return apportion(self.single_image, single_image_shares)
        n_single_image = round(self.one_vision * self.one_vision_single_share)
        return apportion(n_single_image, single_image_shares) | apportion(
            self.one_vision - n_single_image, multi_image_shares
        )

    def list_competing_shares(self, stages: Iterable[TrainingStage | str]) -> list[dict[str, float]]:
        """Return the shares of categories that divide the rows of training stages between them, two at least in each.

        Those of single images are apart from those of several images or videos, whose rows are
        `one_vision_single_share`'s.
        """
        taken = {category for stage in stages for category, n_rows in self.compute_targets(stage).items() if n_rows}
        positive = [{c: s for c, s in shares.items() if s > 0} for shares in self._split_shares()]
        return [shares for shares in positive if len(shares) > 1 and taken & shares.keys()]

    def _split_shares(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the shares of the categories of single images, and of those of several images or videos."""
        own_categories = {c for c, config in load_project().categories.items() if config.multi_image}
        multi_image_categories = own_categories.union(MULTI_IMAGE_CATEGORIES)
        return (
            {c: s for c, s in self.shares.items() if c not in multi_image_categories},
            {c: s for c, s in self.shares.items() if c in multi_image_categories},
        )

    def get_source_cap(self, source: str) -> int | None:
        """Return the most rows of a source in a training stage; None for no limit."""
        own = self.sources.get(source, SourceMix()).max_rows
        return self.max_source_rows if own is None else own


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` by shares into whole rows that add up to it (largest remainder method)."""
    total_share = sum(shares.values())
    if not total_share:
        return dict.fromkeys(shares, 0)
    exact = {c: total * s / total_share for c, s in shares.items()}
    floors = {c: int(x) for c, x in exact.items()}
    remainder = total - sum(floors.values())
    for category in sorted(exact, key=lambda c: (floors[c] - exact[c], c))[:remainder]:
        floors[category] += 1
    return floors
