"""Short videos of moving shapes (H.264 in mp4, made with PyAV), with questions about motion, order and number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random

import av
from PIL import Image

from mvl_assets.demo_data.drawings.drawing import DrawnQAPair, sample_int
from mvl_assets.media.drawing import COLOURS, PAPERS, SHAPES, create_canvas, draw_shape

FRAMES_PER_SECOND = 8
DIRECTIONS = {"left to right": (1, 0), "right to left": (-1, 0), "top to bottom": (0, 1), "bottom to top": (0, -1)}


@dataclass(frozen=True, slots=True)
class VideoClip:
    """The mp4 file's bytes and what is true about it."""

    data: bytes
    qa_pairs: tuple[DrawnQAPair, ...]
    caption: str


def draw_video(rng: Random) -> VideoClip:
    """Draw two to four seconds in which one shape crosses the image and changes its colour half-way."""
    width, height = sample_int(rng, 192, 320, 32), sample_int(rng, 160, 240, 16)
    shape = rng.choice(SHAPES)
    first_colour, second_colour = rng.sample(list(COLOURS), 2)
    direction = rng.choice(list(DIRECTIONS))
    duration_s = sample_int(rng, 2, 4)
    frames = _iter_frames(
        rng.choice(PAPERS),
        (width, height),
        shape,
        (first_colour, second_colour),
        DIRECTIONS[direction],
        duration_s * FRAMES_PER_SECOND,
    )
    caption = (
        f"A {shape} moves from {direction}. "
        f"It is {first_colour} in the first half and {second_colour} in the second half."
    )
    qa_pairs = (
        DrawnQAPair(f"In which direction does the {shape} move?", f"from {direction}", caption),
        DrawnQAPair(f"What colour is the {shape} at the beginning?", first_colour, caption),
        DrawnQAPair(f"What colour is the {shape} at the end?", second_colour, caption),
        DrawnQAPair("Which shape moves through the video?", shape, caption),
        DrawnQAPair("How many shapes move in the video?", "1", caption),
        DrawnQAPair("Does the colour change during the video?", "yes", caption),
    )
    return VideoClip(encode_mp4(frames, (width, height)), qa_pairs, caption)


def _iter_frames(
    paper: tuple[int, int, int],
    size: tuple[int, int],
    shape: str,
    colours: tuple[str, str],
    direction: tuple[int, int],
    n_frames: int,
) -> Iterator[Image.Image]:
    radius = min(size) * 0.2
    for n in range(n_frames):
        image, draw = create_canvas(size, paper)
        progress = 2 * n / (n_frames - 1) - 1  # from -1 at the first frame to 1 at the last
        centre = (
            size[0] / 2 + direction[0] * progress * (size[0] / 2 - radius),
            size[1] / 2 + direction[1] * progress * (size[1] / 2 - radius),
        )
        draw_shape(draw, shape, centre, radius, COLOURS[colours[0] if n < n_frames / 2 else colours[1]])
        yield image


def encode_mp4(frames: Iterator[Image.Image], size: tuple[int, int]) -> bytes:
    """Return H.264 in mp4; equal frames give equal bytes.

    One thread, no time stamps of the day, and no look-ahead: with it (and `mbtree`) x264 gave other bytes for the same
    frames in about one of fifty encodings.
    """
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
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
    return buffer.getvalue()
