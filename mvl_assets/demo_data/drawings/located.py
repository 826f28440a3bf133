"""Scenes that know where everything is: shapes with boxes and outlines, expressions that name one of them.

A maker's `fields` hold `size` (width and height in pixels), `places` and `row_in_image`; the writers of region formats make
annotations of them. Not here: the annotations (`layouts.regions`), text in pictures (`signboards`).
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
    """Questions about a scene of shapes, and the places of all its shapes."""
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
        "size": image.size,
        "places": tuple(_build_region(scene_object, cell) for scene_object in objects),
        "row_in_image": row_in_image,
    }
    turns = tuple((qa_pair.question, qa_pair.answer) for qa_pair in qa_pairs)
    return RowContent(turns, (Drawing(image, qa_pairs, caption),), fields=fields)


def build_referring_expression(rng: Random, image_index: int, row_in_image: int) -> RowContent:
    """A scene and one expression for one of its shapes (`expression`, `place`); two parts share a shape."""
    content = build_located_shapes(rng, image_index, row_in_image)
    regions: tuple[ObjectRegion, ...] = content.fields["places"]  # type: ignore[assignment]
    name_counts = Counter(region.scene_object.name for region in regions)
    unique_regions = [place for place in regions if name_counts[place.scene_object.name] == 1]
    place = unique_regions[row_in_image // 2 % len(unique_regions)]
    position = describe_position(place.scene_object, GRID_SIZE, GRID_SIZE)
    expression = (
        f"the {place.scene_object.name}" if row_in_image % 2 == 0 else f"{place.scene_object.name} in the {position}"
    )
    fields = {**content.fields, "place": place, "expression": expression}
    return RowContent(((expression, place.scene_object.name),), content.drawings, fields=fields)


def describe_relation(subject: SceneObject, reference_object: SceneObject) -> str:
    """Where `subject` lies, seen from `reference_object`: the predicate of a relationship."""
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
