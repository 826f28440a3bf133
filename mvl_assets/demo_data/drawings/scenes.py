"""Scenes of shapes and simple landscapes: counting, colours, positions, relations."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import (
    Drawing,
    DrawnQAPair,
    add_article,
    join_with_and,
    pluralize,
    sample_int,
)
from mvl_assets.media.drawing import COLOURS, PAPERS, RGB, SHAPES, create_canvas, draw_shape


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape of a scene. `column` and `row` count grid cells from the upper left."""

    shape: str
    colour: str
    column: int
    row: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def describe_position(scene_object: SceneObject, columns: int, rows: int) -> str:
    """Return words for the third of the image that an object is in, such as `upper left` or `centre`."""
    vertical = "upper" if scene_object.row < rows / 3 else "lower" if scene_object.row >= rows * 2 / 3 else ""
    horizontal = (
        "left" if scene_object.column < columns / 3 else "right" if scene_object.column >= columns * 2 / 3 else ""
    )
    return f"{vertical} {horizontal}".strip() or "centre"


def render_objects(objects: list[SceneObject], columns: int, rows: int, cell: int, paper: RGB) -> Image.Image:
    """Draw the objects on their grid; the middle of each cell has the object's colour.

    Args:
        objects: Shapes with their grid cells.
        columns: Cells across.
        rows: Cells down.
        cell: Side of a cell in pixels.
        paper: Colour of the background.
    """
    image, draw = create_canvas((columns * cell, rows * cell), paper)
    for scene_object in objects:
        draw_shape(draw, scene_object.shape, *compute_object_circle(scene_object, cell), COLOURS[scene_object.colour])
    return image


def compute_object_circle(scene_object: SceneObject, cell: int) -> tuple[tuple[float, float], float]:
    """Return centre and radius of the object in pixels, where cells have sides of `cell` pixels."""
    return ((scene_object.column + 0.5) * cell, (scene_object.row + 0.5) * cell), cell * 0.36


def sample_objects(rng: Random, columns: int, rows: int, n_objects: int) -> list[SceneObject]:
    """Return `n_objects` objects in different cells; the name (colour and shape) of the first is unique.

    Args:
        rng: Source of randomness.
        columns: Cells across.
        rows: Cells down.
        n_objects: Number of objects, at most one per cell.
    """
    cells = rng.sample([(x, y) for y in range(rows) for x in range(columns)], n_objects)
    names = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    first_name = rng.choice(names)
    other_names = rng.choices([name for name in names if name != first_name], k=n_objects - 1)
    return [SceneObject(*name, *cell) for name, cell in zip([first_name, *other_names], cells, strict=True)]


def sort_as_read(objects: list[SceneObject]) -> list[SceneObject]:
    """Return the objects row by row, each from left to right."""
    return sorted(objects, key=lambda scene_object: (scene_object.row, scene_object.column))


def draw_scene(rng: Random, columns: int = 3, rows: int = 3) -> Drawing:
    """Draw a grid of shapes with questions of counting, colour, place and relation."""
    objects = sample_objects(rng, columns, rows, sample_int(rng, 4, min(7, columns * rows)))
    cell = sample_int(rng, 84, 180, 12)
    image = render_objects(objects, columns, rows, cell, rng.choice(PAPERS))
    qa_pairs = [
        build_count_qa_pair(rng, objects),
        build_total_qa_pair(objects),
        build_position_qa_pair(objects[0], columns, rows),
        *build_relation_qa_pairs(rng, objects),
        *build_colour_qa_pairs(objects),
    ]
    return Drawing(image, tuple(qa_pairs), build_scene_caption(objects))


def draw_strip(rng: Random) -> Drawing:
    """Draw a row of shapes in an image far wider than 7:1."""
    columns = sample_int(rng, 8, 10)
    shapes = [rng.choice(SHAPES) for _ in range(columns)]
    objects = [SceneObject(shape, rng.choice(list(COLOURS)), column, 0) for column, shape in enumerate(shapes)]
    image = render_objects(objects, columns, 1, sample_int(rng, 110, 160, 10), rng.choice(PAPERS))
    first_object, last_object = objects[0], objects[-1]
    qa_pairs = (
        build_count_qa_pair(rng, objects),
        DrawnQAPair(
            "Which shape stands at the far left?",
            first_object.shape,
            f"Reading the row from left to right, it begins with {add_article(first_object.name)}.",
        ),
        DrawnQAPair(
            "What colour is the shape at the far right?",
            last_object.colour,
            f"Reading the row from left to right, it ends with {add_article(last_object.name)}.",
        ),
        build_total_qa_pair(objects),
    )
    return Drawing(
        image,
        qa_pairs,
        f"A long row of {pluralize(columns, 'shape')}, "
        f"from {add_article(first_object.name)} to {add_article(last_object.name)}.",
    )


def build_count_qa_pair(rng: Random, objects: list[SceneObject]) -> DrawnQAPair:
    """Ask how many objects of one kind there are."""
    if rng.random() < 0.5:
        shape = rng.choice(objects).shape
        matching_objects = [scene_object for scene_object in objects if scene_object.shape == shape]
        question = f"How many {shape}s are in the picture?"
        noun = f"{shape}"
    else:
        colour = rng.choice(objects).colour
        matching_objects = [scene_object for scene_object in objects if scene_object.colour == colour]
        question = f"How many {colour} shapes do you see?"
        noun = f"{colour} shape"
    matching_objects = sort_as_read(matching_objects)
    rationale = (
        f"Looking at each shape in turn, the matching ones are: {join_with_and([t.name for t in matching_objects])}."
    )
    return DrawnQAPair(
        question, str(len(matching_objects)), f"{rationale} That makes {pluralize(len(matching_objects), noun)}."
    )


def build_total_qa_pair(objects: list[SceneObject]) -> DrawnQAPair:
    """Ask how many objects there are."""
    names_text = join_with_and([add_article(scene_object.name) for scene_object in sort_as_read(objects)])
    return DrawnQAPair("How many shapes are there in all?", str(len(objects)), f"The picture holds {names_text}.")


def build_position_qa_pair(scene_object: SceneObject, columns: int, rows: int) -> DrawnQAPair:
    """Ask where an object is."""
    position = describe_position(scene_object, columns, rows)
    rationale = (
        f"The {scene_object.name} lies in column {scene_object.column + 1} of {columns} "
        f"and row {scene_object.row + 1} of {rows}."
    )
    return DrawnQAPair(f"In which part of the picture is the {scene_object.name}?", position, rationale)


def build_relation_qa_pairs(rng: Random, objects: list[SceneObject]) -> list[DrawnQAPair]:
    """Return a true-or-false statement about the first object and another with a unique name, if there is one."""
    unique_objects = [
        scene_object
        for scene_object in objects[1:]
        if sum(other_object.name == scene_object.name for other_object in objects) == 1
    ]
    if not unique_objects:
        return []
    first_object, other = objects[0], rng.choice(unique_objects)
    if first_object.column != other.column:
        direction = rng.choice(("left", "right"))
        is_true = (first_object.column < other.column) == (direction == "left")
        relation = f"to the {direction} of"
    else:
        direction = rng.choice(("above", "below"))
        is_true = (first_object.row < other.row) == (direction == "above")
        relation = direction
    rationale = (
        f"The {first_object.name} is in column {first_object.column + 1}, row {first_object.row + 1}; "
        f"the {other.name} is in column {other.column + 1}, row {other.row + 1}."
    )
    return [
        DrawnQAPair(f"Is the {first_object.name} {relation} the {other.name}?", "yes" if is_true else "no", rationale)
    ]


def build_colour_qa_pairs(objects: list[SceneObject]) -> list[DrawnQAPair]:
    """Return one question for each shape that occurs once."""
    unique_objects = [t for t in objects if sum(o.shape == t.shape for o in objects) == 1]
    return [
        DrawnQAPair(
            f"What colour is the {scene_object.shape}?",
            scene_object.colour,
            f"There is only one {scene_object.shape} in the picture, and it is filled with {scene_object.colour}.",
        )
        for scene_object in unique_objects
    ]


def build_scene_caption(objects: list[SceneObject]) -> str:
    """Describe all objects of a scene."""
    names = join_with_and([add_article(scene_object.name) for scene_object in sort_as_read(objects)])
    return f"A plain picture with {pluralize(len(objects), 'shape')}: {names}."


def draw_landscape(rng: Random) -> Drawing:
    """Draw a house on a meadow by day or night, with trees and windows to count."""
    width, height = sample_int(rng, 260, 680, 20), sample_int(rng, 220, 460, 20)
    is_night = rng.random() < 0.4
    sky: RGB = (22, 28, 66) if is_night else (160, 208, 245)
    image, draw = create_canvas((width, height), sky)
    ground_y = int(height * 0.7)
    draw.rectangle((0, ground_y, width, height), fill=(30, 70, 40) if is_night else (104, 178, 88))
    is_light_left = rng.random() < 0.5
    _draw_sun_or_moon(draw, (width * (0.14 if is_light_left else 0.86), height * 0.17), height * 0.09, is_night)
    wall, door = rng.sample(["red", "yellow", "orange", "pink", "purple"], 2)
    n_windows, n_trees = sample_int(rng, 1, 4), sample_int(rng, 1, 3)
    is_house_left = rng.random() < 0.5
    _draw_house(draw, (width, height, ground_y), is_house_left, COLOURS[wall], COLOURS[door], n_windows)
    _draw_trees(draw, (width, height, ground_y), not is_house_left, n_trees)
    side = "left" if is_house_left else "right"
    light = "moon" if is_night else "sun"
    caption = (
        f"{add_article(wall).capitalize()} house with {add_article(door)} door "
        f"and {pluralize(n_windows, 'window')} stands "
        f"on the {side} of a meadow with {pluralize(n_trees, 'tree')}, "
        f"under {'a night sky with the moon' if is_night else 'a blue sky with the sun'}."
    )
    qa_pairs = (
        DrawnQAPair(
            "What colour is the door of the house?", door, f"The house has {wall} walls, and its door is {door}."
        ),
        DrawnQAPair(
            "How many trees are in the picture?",
            str(n_trees),
            f"Beside the house, on the other half of the meadow, stand {pluralize(n_trees, 'tree')}.",
        ),
        DrawnQAPair(
            "Is it day or night?",
            "night" if is_night else "day",
            f"The {light} is in the sky, which is {'dark' if is_night else 'light blue'}.",
        ),
        DrawnQAPair(
            "How many windows does the house have?", str(n_windows), f"The wall shows {pluralize(n_windows, 'window')}."
        ),
        DrawnQAPair(
            "On which side of the picture is the house?",
            side,
            f"The house stands on the {side} half and the trees on the other half.",
        ),
        DrawnQAPair(
            f"What colour are the walls of the house with the {door} door?", wall, f"The walls are painted {wall}."
        ),
    )
    return Drawing(image, qa_pairs, caption)


def _draw_sun_or_moon(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, is_night: bool) -> None:
    draw_shape(draw, "circle", centre, radius, (240, 240, 225) if is_night else (250, 215, 60))


def _draw_house(
    draw: ImageDraw.ImageDraw, layout: tuple[int, int, int], is_left: bool, wall: RGB, door: RGB, n_windows: int
) -> None:
    width, height, ground_y = layout
    x0 = width * (0.06 if is_left else 0.54)
    x1, y0, y1 = x0 + width * 0.4, ground_y - height * 0.3, ground_y + height * 0.08
    draw.rectangle((x0, y0, x1, y1), fill=wall)
    draw.polygon([(x0 - 8, y0), ((x0 + x1) / 2, y0 - height * 0.2), (x1 + 8, y0)], fill=(96, 64, 48))
    mid = (x0 + x1) / 2
    draw.rectangle((mid - width * 0.035, y1 - height * 0.17, mid + width * 0.035, y1), fill=door)
    pane = width * 0.045
    for n in range(n_windows):
        x = x0 + (x1 - x0) * (n + 0.5) / n_windows
        top = y0 + height * 0.04
        draw.rectangle(
            (x - pane / 2, top, x + pane / 2, top + height * 0.09), fill=(225, 240, 250), outline=(40, 40, 40)
        )


def _draw_trees(draw: ImageDraw.ImageDraw, layout: tuple[int, int, int], is_left: bool, n_trees: int) -> None:
    width, height, ground_y = layout
    for n in range(n_trees):
        x = width * ((0.04 if is_left else 0.54) + 0.42 * (n + 0.5) / n_trees)
        base_y = ground_y + height * 0.12
        draw.rectangle((x - 4, base_y - height * 0.16, x + 4, base_y), fill=(90, 58, 36))
        draw_shape(draw, "circle", (x, base_y - height * 0.22), min(height * 0.1, width * 0.06), (26, 110, 52))
