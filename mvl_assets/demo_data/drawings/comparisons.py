"""Pairs of images for the multi-image sources: two scenes and a claim, and a scene before and after an edit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import DrawnQAPair, add_article, pluralize, sample_int
from mvl_assets.demo_data.drawings.scenes import describe_position, render_objects, sample_objects
from mvl_assets.media.drawing import COLOURS, PAPERS, SHAPES

N_COLUMNS = N_ROWS = 3


@dataclass(frozen=True, slots=True)
class MultiImageDrawing:
    """Images in order, and what is true about all of them together."""

    images: tuple[Image.Image, ...]
    qa_pairs: tuple[DrawnQAPair, ...]


def draw_claim_pair(rng: Random) -> MultiImageDrawing:
    """Draw two scenes; a statement about their counts is true or false (NLVR2's task)."""
    cell, paper = sample_int(rng, 70, 130, 10), rng.choice(PAPERS)
    left, right = (sample_objects(rng, N_COLUMNS, N_ROWS, sample_int(rng, 2, 6)) for _ in range(2))
    shape = rng.choice([*left, *right]).shape
    first_count, second_count = (sum(scene_object.shape == shape for scene_object in side) for side in (left, right))
    rationale = (
        f"The first picture has {pluralize(first_count, shape)} and the second has {pluralize(second_count, shape)}."
    )
    statement, is_true = rng.choice(
        (
            (f"The first picture has more {shape}s than the second.", first_count > second_count),
            (f"Both pictures hold the same number of {shape}s.", first_count == second_count),
            (f"Together the pictures hold exactly {pluralize(first_count + second_count, shape)}.", True),
            (f"Together the pictures hold exactly {pluralize(first_count + second_count + 1, shape)}.", False),
            (f"Each picture holds at least one {shape}.", first_count > 0 and second_count > 0),
        )
    )
    qa_pairs = (
        DrawnQAPair(f"Is this statement true or false? {statement}", "true" if is_true else "false", rationale),
        DrawnQAPair(
            f"How many {shape}s are there in both pictures together?",
            str(first_count + second_count),
            f"{rationale} {first_count} + {second_count} = {first_count + second_count}.",
        ),
        DrawnQAPair(
            "Which picture shows more shapes, the first or the second?",
            "the same" if len(left) == len(right) else "the first" if len(left) > len(right) else "the second",
            f"The first shows {pluralize(len(left), 'shape')}, the second {pluralize(len(right), 'shape')}.",
        ),
    )
    return MultiImageDrawing(
        (render_objects(left, N_COLUMNS, N_ROWS, cell, paper), render_objects(right, N_COLUMNS, N_ROWS, cell, paper)),
        qa_pairs,
    )


def draw_edit_pair(rng: Random) -> MultiImageDrawing:
    """Draw a scene before and after one object is recoloured, reshaped, removed or added (HQ-Edit's task)."""
    cell, paper = sample_int(rng, 70, 130, 10), rng.choice(PAPERS)
    before = sample_objects(rng, N_COLUMNS, N_ROWS, sample_int(rng, 3, 6))
    edited_object = before[0]
    position = describe_position(edited_object, N_COLUMNS, N_ROWS)
    operation = rng.choice(("recolour", "reshape", "remove", "add"))
    if operation == "recolour":
        colour = rng.choice([name for name in COLOURS if name != edited_object.colour])
        after = [replace(edited_object, colour=colour), *before[1:]]
        answer = f"Change the colour of the {edited_object.name} ({position}) to {colour}."
        edit_type = "colour"
    elif operation == "reshape":
        shape = rng.choice([name for name in SHAPES if name != edited_object.shape])
        after = [replace(edited_object, shape=shape), *before[1:]]
        answer = f"Turn the {edited_object.name} ({position}) into {add_article(f'{edited_object.colour} {shape}')}."
        edit_type = "shape"
    elif operation == "remove":
        after = before[1:]
        answer = f"Remove the {edited_object.name} ({position})."
        edit_type = "removed"
    else:
        before, after = before[1:], before
        answer = f"Add {add_article(edited_object.name)} ({position})."
        edit_type = "added"
    rationale = "Comparing the two pictures cell by cell, everything else stays where it was."
    qa_pairs = (
        DrawnQAPair("Which instruction turns the first picture into the second?", answer, rationale),
        DrawnQAPair(
            "What happened to one thing between the pictures: colour, shape, removed or added?",
            edit_type,
            f"{rationale} The edit was: {answer}",
        ),
        DrawnQAPair(
            "In which part of the picture do the two pictures differ?",
            position,
            f"{rationale} The edit was: {answer}",
        ),
    )
    return MultiImageDrawing(
        (render_objects(before, N_COLUMNS, N_ROWS, cell, paper), render_objects(after, N_COLUMNS, N_ROWS, cell, paper)),
        qa_pairs,
    )
