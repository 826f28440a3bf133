"""When two rows, or two images, are the same: the thresholds of `curation/duplicates`."""

from __future__ import annotations

from pydantic import Field

from mvl_assets.config.strict_yaml import StrictModel


class DuplicateRules(StrictModel):
    """Thresholds over stored scores: to move one compares nothing again.

    Attributes:
        near: Whether near duplicates are looked for; exact ones always are.
        min_correlation: Smallest correlation of the grey values of an image and its copy.
        max_block_difference: Largest difference of one block of a copy, in standard deviations of the grey values; a
            watermark makes one of up to 1.
        max_lost_edges: Largest share of the edges of a small window that a copy loses: a digit that differs loses more,
            a watermark less.
        min_text_overlap: Smallest share of words that rows with the same images have in common.
        min_text_only_overlap: The same for rows without images.
        min_text_containment: Smallest share of the shorter question's words, and of the shorter answer's, that the
            longer one has, too.
        max_removed: Largest share of its rows that a source may lose before the check fails.
        allow_removed: Sources that may lose more, each with the reason.
    """

    near: bool = True
    min_correlation: float = Field(default=0.88, gt=0, le=1)
    max_block_difference: float = Field(default=1.25, ge=0)
    max_lost_edges: float = Field(default=0.15, ge=0)
    min_text_overlap: float = Field(default=0.6, ge=0, le=1)
    min_text_only_overlap: float = Field(default=0.8, ge=0, le=1)
    min_text_containment: float = Field(default=0.95, ge=0, le=1)
    max_removed: float = Field(default=0.5, ge=0, le=1)
    allow_removed: dict[str, str] = Field(default_factory=dict)

    def is_image_copy(self, correlation: float, block_difference: float, lost_edges: float) -> bool:
        """Return whether two images with these scores are copies."""
        return (
            correlation >= self.min_correlation
            and block_difference <= self.max_block_difference
            and lost_edges <= self.max_lost_edges
        )
