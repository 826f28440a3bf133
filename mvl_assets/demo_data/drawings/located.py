"""Scenes with known regions: shapes with boxes and outlines, and expressions that refer to one of them.

A builder's `fields` hold `image_size` (width and height in pixels), `regions` and `region`; `layouts.regions` makes
annotations of them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from mvl_assets.demo_data.contents import RowContent
from mvl_assets.demo_data.drawings.drawing import Drawing, sample_int
from mvl_assets.demo_data.drawings.scenes import (
    SceneObject,
    build_colour_qa_pairs,
    build_count_qa_pair,
    build_position_qa_pair,
    build_scene_caption,
    build_total_qa_pair,
    compute_object_circle,
    describe_position,
    render_objects,
    sample_objects,
)
from mvl_assets.media.drawing import PAPERS, compute_polygon

GRID_SIZE = 3
"""Columns and rows of a scene."""


@dataclass(frozen=True, slots=True)
class ObjectRegion:
    """A shape and where it is. `box` is x, y, width, height and `polygon` the outline, in pixels."""

    scene_object: SceneObject
    box: tuple[float, float, float, float]
    polygon: tuple[tuple[float, float], ...]


def build_located_shapes(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return questions about a scene of shapes, and the regions of all its shapes."""
    objects = sample_objects(rng, GRID_SIZE, GRID_SIZE, sample_int(rng, 4, 7))
    cell = sample_int(rng, 84, 144, 12)
    image = render_objects(objects, GRID_SIZE, GRID_SIZE, cell, rng.choice(PAPERS))
    qa_pairs = (
        build_count_qa_pair(rng, objects),
        build_total_qa_pair(objects),
        build_position_qa_pair(objects[0], GRID_SIZE, GRID_SIZE),
        *build_colour_qa_pairs(objects),
    )
    caption = build_scene_caption(objects)
    fields = {
        "image_size": image.size,
        "regions": tuple(_build_region(scene_object, cell) for scene_object in objects),
        "row_in_image": row_in_image,
    }
    turns = tuple((qa_pair.question, qa_pair.answer) for qa_pair in qa_pairs)
    return RowContent(turns, (Drawing(image, qa_pairs, caption),), fields=fields)


def build_referring_expression(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """Return a scene and one expression for one of its shapes (`expression`, `region`); two rows share a shape."""
    content = build_located_shapes(rng, image_index, row_in_image)
    regions: tuple[ObjectRegion, ...] = content.fields["regions"]  # type: ignore[assignment]
    name_counts = Counter(region.scene_object.name for region in regions)
    unique_regions = [region for region in regions if name_counts[region.scene_object.name] == 1]
    region = unique_regions[row_in_image // 2 % len(unique_regions)]
    position = describe_position(region.scene_object, GRID_SIZE, GRID_SIZE)
    expression = (
        f"the {region.scene_object.name}" if row_in_image % 2 == 0 else f"{region.scene_object.name} in the {position}"
    )
    fields = {**content.fields, "region": region, "expression": expression}
    return RowContent(((expression, region.scene_object.name),), content.drawings, fields=fields)


def describe_relation(subject: SceneObject, reference_object: SceneObject) -> str:
    """Return where `subject` is, seen from `reference_object`: the predicate of a relationship."""
    if subject.column != reference_object.column:
        return "left of" if subject.column < reference_object.column else "right of"
    return "above" if subject.row < reference_object.row else "below"


def _build_region(scene_object: SceneObject, cell: int) -> ObjectRegion:
    centre, radius = compute_object_circle(scene_object, cell)
    if scene_object.shape == "circle":
        angles = [2 * math.pi * n / 24 for n in range(24)]
        polygon = [(centre[0] + radius * math.sin(turn), centre[1] - radius * math.cos(turn)) for turn in angles]
    else:
        polygon = compute_polygon(scene_object.shape, centre, radius)
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return ObjectRegion(scene_object, box, tuple(polygon))
