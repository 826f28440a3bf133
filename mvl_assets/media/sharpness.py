"""How sharp an image is: the variance of its Laplacian, which is near 0 where nothing has an edge."""

from __future__ import annotations

import numpy as np
from PIL import Image

MIN_SHARPNESS_SIDE = 256
"""Smallest short side, in pixels, to which an image is reduced before it is measured: the same scene has the same value
at any size and in any format, and what a model sees blurred is blurred here. A photograph of 1,500 has 120 left after a
Gaussian blur by 1/256 of its side, 20 after one by 1/128, 5 after one by 1/64; a page of print has 4,900."""


def measure_sharpness(reduced: Image.Image) -> float | None:
    """Return the variance of the Laplacian of grey levels from 0 to 255; None for an image under 3 pixels."""
    grey = np.asarray(reduced if reduced.mode == "L" else reduced.convert("L"), dtype=np.int16)
    if min(grey.shape) < 3:
        return None
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var())
