"""Cards show what their captions name."""

from random import Random

import numpy as np

from mvl_assets.media.drawing import COLOURS, SHAPES
from mvl_assets.small_world.cards import CARD_SIZE, WORDS, draw_card


def test_a_card_is_one_tile_and_the_same_each_time():
    first, second = (draw_card(Random("card")) for _ in range(2))
    assert first.image.size == (CARD_SIZE, CARD_SIZE)
    assert first.caption == second.caption and first.image.tobytes() == second.image.tobytes()


def test_a_card_shows_the_colours_that_its_caption_names():
    for seed in range(60):
        card = draw_card(Random(seed))
        named = {item.split()[0] for item in card.caption.split(", ") if item.split()[-1] in SHAPES}
        pixels = np.asarray(card.image, dtype=np.int16).reshape(-1, 3)
        shown = {
            name for name, colour in COLOURS.items() if (np.abs(pixels - np.array(colour)).max(axis=1) < 4).sum() > 20
        }
        assert named <= shown, (seed, card.caption)


def test_words_are_those_of_the_drawings():
    assert {"Mon", "tadpole", "Ada", "Mill Lane", "KEEP LEFT"} <= set(WORDS)
