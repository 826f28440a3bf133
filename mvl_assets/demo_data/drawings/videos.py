"""Short films of moving shapes (H.264 in mp4, made with PyAV), with questions about motion, order and number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random

import av
from PIL import Image

from mvl_assets.demo_data.drawings.drawing import COLOURS, PAPERS, Pair, between, canvas
from mvl_assets.demo_data.drawings.shapes import SHAPES, draw_shape

FRAMES_PER_SECOND = 8
MOVES = {"left to right": (1, 0), "right to left": (-1, 0), "top to bottom": (0, 1), "bottom to top": (0, -1)}


@dataclass(frozen=True, slots=True)
class Film:
    """The mp4 file's bytes and what is true about it."""

    data: bytes
    pairs: tuple[Pair, ...]
    caption: str


def film(rng: Random) -> Film:
    """One shape crosses the picture and changes its colour half-way; lasts two to four seconds."""
    wide, high = between(rng, 192, 320, 32), between(rng, 160, 240, 16)
    shape = rng.choice(SHAPES)
    first, second = rng.sample(list(COLOURS), 2)
    words = rng.choice(list(MOVES))
    seconds = between(rng, 2, 4)
    frames = _frames(
        rng.choice(PAPERS), (wide, high), shape, (first, second), MOVES[words], seconds * FRAMES_PER_SECOND
    )
    told = f"A {shape} moves from {words}. It is {first} in the first half and {second} in the second half."
    pairs = (
        Pair(f"In which direction does the {shape} move?", f"from {words}", told),
        Pair(f"What colour is the {shape} at the beginning?", first, told),
        Pair(f"What colour is the {shape} at the end?", second, told),
        Pair("Which shape moves through the video?", shape, told),
        Pair("How many shapes move in the video?", "1", told),
        Pair("Does the colour change during the video?", "yes", told),
    )
    return Film(encode(frames, (wide, high)), pairs, told)


def _frames(
    paper: tuple[int, int, int],
    size: tuple[int, int],
    shape: str,
    colours: tuple[str, str],
    step: tuple[int, int],
    count: int,
) -> Iterator[Image.Image]:
    radius = min(size) * 0.2
    for n in range(count):
        picture, draw = canvas(size, paper)
        way = 2 * n / (count - 1) - 1  # from -1 at the first frame to 1 at the last
        centre = (
            size[0] / 2 + step[0] * way * (size[0] / 2 - radius),
            size[1] / 2 + step[1] * way * (size[1] / 2 - radius),
        )
        draw_shape(draw, shape, centre, radius, COLOURS[colours[0] if n < count / 2 else colours[1]])
        yield picture


def encode(frames: Iterator[Image.Image], size: tuple[int, int]) -> bytes:
    """H.264 in mp4; equal frames give equal bytes.

    One thread, no time stamps of the day, and no look-ahead: with it (and `mbtree`) x264 gave other bytes for the same
    frames in about one of fifty encodings.
    """
    target = BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "preset": "ultrafast",
            "crf": "20",
            "threads": "1",
            "x264-params": "rc-lookahead=0:sync-lookahead=0",
        }
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return target.getvalue()
