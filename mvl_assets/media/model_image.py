"""A stored picture as the bytes a served model gets: standard form, no larger than the model can use."""

from __future__ import annotations

import io

from PIL import ExifTags, Image

from mvl_assets.media.image import FORMATS, encode, standard_size, standardise

# Formats every server decodes; pictures in them that need no change travel as they are.
_TRAVELS_AS_IS = ("JPEG", "PNG")


def for_model(data: bytes, longest_side: int) -> bytes:
    """JPEG or PNG bytes of the standard form, scaled down to `longest_side` pixels. Raises `PictureError`.

    A picture that is already so is returned unchanged after a look at its header, which costs a hundredth of a decode.
    """
    if _is_ready(data, longest_side):
        return data
    picture = standardise(data)
    if max(picture.size) > longest_side:
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return encode(picture)


def _is_ready(data: bytes, longest_side: int) -> bool:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        return (
            picture.format in _TRAVELS_AS_IS
            and picture.mode == "RGB"
            and "transparency" not in picture.info
            and getattr(picture, "n_frames", 1) == 1
            and max(picture.size) <= longest_side
            and standard_size(*picture.size).verdict == "as_is"
            and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
        )
    except Exception:  # Whatever is wrong with it, `standardise` says it as a PictureError.
        return False
