"""Pictures to file bytes, including the awkward encodings that real collections hold.

Every encoding keeps the picture's meaning: once standardised (turned as EXIF says, made RGB), it shows what was drawn.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import Drawing

ORIENTATION = 0x0112
TURN_CLOCKWISE = 6  # EXIF: the stored rows are the upright picture's columns; show it turned by 90 degrees clockwise
_AWKWARD = {3: "turned", 7: "cmyk", 10: "palette", 13: "deep"}


def style_of(drawing: Drawing, index: int) -> str:
    """Four of sixteen pictures are awkward; the others are PNG and JPEG in turn, photos always JPEG."""
    style = _AWKWARD.get(index % 16, "png" if index % 2 == 0 and not drawing.photo else "jpeg")
    return "jpeg" if style == "deep" and drawing.needs_colour else style


def encode(drawing: Drawing, style: str) -> tuple[str, bytes]:
    """(file name suffix, bytes) of the drawing's picture in one of the styles `style_of` gives."""
    picture, target = drawing.picture, BytesIO()
    if style == "turned":
        exif = Image.Exif()
        exif[ORIENTATION] = TURN_CLOCKWISE
        picture.transpose(Image.Transpose.ROTATE_90).save(target, "JPEG", quality=90, exif=exif)
    elif style == "cmyk":
        picture.convert("CMYK").save(target, "JPEG", quality=90)
    elif style == "jpeg":
        picture.save(target, "JPEG", quality=88)
    elif style == "palette":
        picture.quantize(64, dither=Image.Dither.NONE).save(target, "PNG", compress_level=4)
    elif style == "deep":
        deep = picture.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
        deep.save(target, "PNG", compress_level=4)
    else:
        picture.save(target, "PNG", compress_level=4)
    return (".jpg" if style in ("turned", "cmyk", "jpeg") else ".png"), target.getvalue()
