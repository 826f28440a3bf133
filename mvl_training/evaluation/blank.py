"""The blank-picture control: a grey picture of the same size in the place of the true one.

What a model gets right over grey it gets from the language alone; only the difference is seeing.
"""

from __future__ import annotations

from PIL import Image

from mvl_assets.media.picture import encode, standardise

# The middle of the value range: after normalising with mean 0.5 every patch is nearly zero.
GREY = (128, 128, 128)


def blank_like(data: bytes) -> bytes:
    """A grey PNG with the size `data` has once it is standardised, so that it becomes the same number of tokens.

    Raises `PictureError` when `data` is no picture.
    """
    return encode(Image.new("RGB", standardise(data).size, GREY), "PNG")
