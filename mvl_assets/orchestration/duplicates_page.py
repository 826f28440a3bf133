"""What the page of `curation/duplicates` shows: pairs side by side, a table by source, a plot of what sources lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from PIL import Image, ImageDraw, ImageFont

from mvl_assets.common.markdown import embed_image, encode_data_uri, escape_cell
from mvl_assets.curation.duplicates import SourceDuplicates
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.duplicate_examples import DuplicateExample
from mvl_assets.media.image import ImageError, build_thumbnail
from mvl_assets.orchestration.metadata import MAX_ID_CHARS, format_conversation, render_markdown_table
from mvl_assets.orchestration.speed_plot import encode_plot

MAX_SIDE = 88
"""Longer side of an image on the page, in pixels: all stay below 40 kB."""

MAX_BYTES = 40_000
MAX_SOURCES, MAX_BARS = 40, 12
BAR_WIDTH, BAR_HEIGHT, LABEL_WIDTH = 300, 18, 190
EXACT_COLOUR, NEAR_COLOUR, TEXT_COLOUR = (31, 78, 121), (176, 92, 20), (60, 60, 66)


def render_duplicate_pairs(lake: Lake, examples: Sequence[DuplicateExample]) -> dg.MetadataValue:
    """Return pairs as a table: what is dropped, what stays, by which rule and with which scores."""
    if not examples:
        return dg.MetadataValue.md("none")
    lines = ["| dropped | stays | why |", "|---|---|---|"]
    n_bytes = 0
    for example in examples:
        cells = [
            *(render_sample(lake, sample) for sample in (example.dropped, example.kept)),
            _render_reason(example),
        ]
        line = f"| {' | '.join(cells)} |"
        n_bytes += len(line.encode())
        if n_bytes > MAX_BYTES:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join(lines))


def render_source_duplicates(sources: Sequence[SourceDuplicates]) -> dg.MetadataValue:
    """Return what each source loses, those that lose most first."""
    return render_markdown_table(
        [
            {
                "source": source.source,
                "samples": f"{source.n_rows:,}",
                "exact": f"{source.n_exact:,}",
                "near": f"{source.n_near:,}",
                "removed": f"{source.removed_share:.1%}",
                "same images, other words": f"{source.n_other_question:,}",
            }
            for source in sources[:MAX_SOURCES]
        ]
    )


def render_removed_shares(sources: Sequence[SourceDuplicates]) -> dg.MetadataValue | None:
    """Return a plot of the shares that sources lose, exact and near duplicates; None if none loses any."""
    bars = [source for source in sources if source.removed_share][:MAX_BARS]
    if not bars:
        return None
    image = Image.new("RGB", (LABEL_WIDTH + BAR_WIDTH + 50, BAR_HEIGHT * (len(bars) + 1) + 8), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    draw.text((LABEL_WIDTH, 4), "exact", fill=EXACT_COLOUR, font=font)
    draw.text((LABEL_WIDTH + 50, 4), "near", fill=NEAR_COLOUR, font=font)
    for row, source in enumerate(bars, start=1):
        top = BAR_HEIGHT * row + 4
        middle = top + BAR_HEIGHT // 2
        draw.text((LABEL_WIDTH - 6, middle), source.source[:28], fill=TEXT_COLOUR, font=font, anchor="rm")
        exact_end = LABEL_WIDTH + round(BAR_WIDTH * source.n_exact / source.n_rows)
        end = LABEL_WIDTH + round(BAR_WIDTH * source.removed_share)
        draw.rectangle((LABEL_WIDTH, top + 2, max(LABEL_WIDTH, exact_end), top + BAR_HEIGHT - 3), fill=EXACT_COLOUR)
        if end > exact_end:
            draw.rectangle((exact_end, top + 2, end, top + BAR_HEIGHT - 3), fill=NEAR_COLOUR)
        draw.text((end + 6, middle), f"{source.removed_share:.0%}", fill=TEXT_COLOUR, font=font, anchor="lm")
    return dg.MetadataValue.md(embed_image(encode_plot(image), "share of samples that are duplicates, by source"))


def render_sample(lake: Lake, sample: Mapping[str, Any], image_id: str | None = None) -> str:
    """Return a cell with one image of a sample (the first, unless another is named), its id and what it says."""
    image_ids = sample["image_ids"] or []
    cell = ""
    if image_ids:
        image_id = image_id or image_ids[0]
        data = lake.get_images(sample["source"]).read_stored_images([image_id]).get(image_id)
        try:
            cell = "" if data is None else f"![]({encode_data_uri(build_thumbnail(data, MAX_SIDE), 'image/jpeg')})"
        except ImageError:
            cell = ""
        cell += f" +{len(image_ids) - 1}" if len(image_ids) > 1 else ""
    name = f"{sample['source']} {sample['sample_id'][:MAX_ID_CHARS]}"
    return f"{cell} {escape_cell(name)}: {escape_cell(format_conversation(sample['conversations']))}"


def _render_reason(example: DuplicateExample) -> str:
    duplicate = example.duplicate
    names = ("correlation", "block_difference", "lost_edges", "text_overlap", "text_containment")
    scores = [f"{name.replace('_', ' ')} {duplicate[name]:.3g}" for name in names if duplicate[name] is not None]
    return escape_cell(", ".join([duplicate["rule"].replace("_", " "), *scores]))
