"""Several images that belong together: puzzles with a missing panel, and stories told in a row of images."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.comparisons import MultiImageDrawing
from mvl_assets.demo_data.drawings.drawing import NUMBER_WORDS, Drawing, DrawnQAPair, add_article, pluralize, sample_int
from mvl_assets.demo_data.drawings.scenes import SceneObject, build_scene_caption, render_objects, sample_objects
from mvl_assets.demo_data.drawings.videos import DIRECTIONS
from mvl_assets.media.drawing import COLOURS, INK, PAPERS, SHAPES, create_canvas, draw_shape, draw_text

PANEL_SIZE = 84
"""Pixels of one panel."""


def draw_puzzle_matrix(rng: Random) -> Drawing:
    """Draw nine panels in one image, the last one missing: shapes change by row and their number by column."""
    shapes, colour, panels = _draw_panels(rng)
    image, draw = create_canvas((PANEL_SIZE * 3 + 1, PANEL_SIZE * 3 + 1), (255, 255, 255))
    for n, panel in enumerate(panels):
        image.paste(panel, (n % 3 * PANEL_SIZE, n // 3 * PANEL_SIZE))
    for line_index in range(4):
        draw.line((line_index * PANEL_SIZE, 0, line_index * PANEL_SIZE, PANEL_SIZE * 3), fill=INK)
        draw.line((0, line_index * PANEL_SIZE, PANEL_SIZE * 3, line_index * PANEL_SIZE), fill=INK)
    draw_text(draw, (PANEL_SIZE * 2.5, PANEL_SIZE * 2.5), "?", 40, anchor="mm")
    return Drawing(
        image, _build_puzzle_qa_pairs(rng, shapes, colour), f"A puzzle of nine panels with {shapes[0]}s above."
    )


def draw_puzzle_panels(rng: Random) -> MultiImageDrawing:
    """Draw the same puzzle as eight images in reading order."""
    shapes, colour, panels = _draw_panels(rng)
    return MultiImageDrawing(tuple(panels[:8]), _build_puzzle_qa_pairs(rng, shapes, colour))


def draw_story(rng: Random) -> MultiImageDrawing:
    """Draw three to five images in which one shape crosses the image and at last changes its colour."""
    count = sample_int(rng, 3, 5)
    shape, direction = rng.choice(SHAPES), rng.choice(list(DIRECTIONS))
    first_colour, last_colour = rng.sample(list(COLOURS), 2)
    paper, (x, y) = rng.choice(PAPERS), DIRECTIONS[direction]
    images = []
    for n in range(count):
        image, draw = create_canvas((160, 120), paper)
        progress = 2 * n / (count - 1) - 1
        draw_shape(
            draw,
            shape,
            (80 + x * progress * 55, 60 + y * progress * 35),
            22,
            COLOURS[last_colour if n + 1 == count else first_colour],
        )
        images.append(image)
    caption = (
        f"{add_article(first_colour).capitalize()} {shape} moves from {direction}, "
        f"and in the last picture it turns {last_colour}."
    )
    qa_pairs = (
        DrawnQAPair(
            "Tell the story of these pictures in one sentence.", caption, f"There are {count} pictures in order."
        ),
        DrawnQAPair("What colour does the shape have in the last picture?", last_colour, caption),
        DrawnQAPair("In which direction does the shape move from picture to picture?", f"from {direction}", caption),
    )
    return MultiImageDrawing(tuple(images), qa_pairs)


def draw_contrast_pair(rng: Random) -> MultiImageDrawing:
    """Draw two scenes that differ in one thing, each with a caption of its own."""
    cell, paper = sample_int(rng, 60, 100, 10), rng.choice(PAPERS)
    objects = sample_objects(rng, 3, 3, sample_int(rng, 3, 5))
    colour = rng.choice([name for name in COLOURS if name != objects[0].colour])
    changed_objects = [replace(objects[0], colour=colour), *objects[1:]]
    captions = [build_scene_caption(list(side)) for side in (objects, changed_objects)]
    qa_pairs = (
        DrawnQAPair(
            "Caption the first picture, then the second.", " ".join(captions), "The pictures differ in one shape."
        ),
        DrawnQAPair(
            "Which shape of the second picture was not like this in the first?",
            f"the {changed_objects[0].name}",
            f"In the first picture it is {add_article(objects[0].name)}.",
        ),
    )
    return MultiImageDrawing(
        (render_objects(objects, 3, 3, cell, paper), render_objects(changed_objects, 3, 3, cell, paper)), qa_pairs
    )


def draw_odd_one_out(rng: Random) -> MultiImageDrawing:
    """Draw a row of images with one object each; all but one are alike."""
    count = sample_int(rng, 3, 5)
    shape, odd_shape = rng.sample(SHAPES, 2)
    colour, odd_index = rng.choice(list(COLOURS)), rng.randrange(count)
    image_shapes = [odd_shape if n == odd_index else shape for n in range(count)]
    images = tuple(
        render_objects([SceneObject(name, colour, 0, 0)], 1, 1, PANEL_SIZE, (255, 255, 255)) for name in image_shapes
    )
    rationale = f"Picture {odd_index + 1} shows {add_article(odd_shape)}, the others show {shape}s."
    qa_pairs = (
        DrawnQAPair("Which picture is not like the others? Answer with its number.", str(odd_index + 1), rationale),
        DrawnQAPair(f"How many of the pictures show {add_article(shape)}?", str(count - 1), rationale),
    )
    return MultiImageDrawing(images, qa_pairs)


def _draw_panels(rng: Random) -> tuple[list[str], str, list[Image.Image]]:
    """Draw shapes by row, their colour, and nine panels; the ninth is empty."""
    shapes, colour = rng.sample(SHAPES, 3), rng.choice(list(COLOURS))
    panels = []
    for n in range(9):
        image, draw = create_canvas((PANEL_SIZE, PANEL_SIZE), (255, 255, 255))
        if n < 8:
            _draw_panel_shapes(draw, shapes[n // 3], colour, n % 3 + 1)
        panels.append(image)
    return shapes, colour, panels


def _draw_panel_shapes(draw: ImageDraw.ImageDraw, shape: str, colour: str, count: int) -> None:
    for n in range(count):
        draw_shape(draw, shape, (PANEL_SIZE * (n + 1) / (count + 1), PANEL_SIZE / 2), PANEL_SIZE * 0.1, COLOURS[colour])


def _build_puzzle_qa_pairs(rng: Random, shapes: list[str], colour: str) -> tuple[DrawnQAPair, ...]:
    answer = f"three {colour} {shapes[2]}s"
    rationale = (
        f"Each row keeps its shape and counts one, two, three. The last row holds {shapes[2]}s, two in the middle."
    )
    wrong_choices = [f"{NUMBER_WORDS[count]} {colour} {shape}s" for shape in shapes for count in (2, 3)]
    choices = (answer, *rng.sample([choice for choice in wrong_choices if choice != answer], 3))
    return (
        DrawnQAPair("Which panel is missing at the end?", answer, rationale, choices),
        DrawnQAPair(
            f"How many {shapes[1]}s are in the second row?",
            "6",
            f"The row holds 1, 2 and 3: {pluralize(6, shapes[1])}.",
        ),
    )
