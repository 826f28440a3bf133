"""Encode drawings as image files, including the unusual encodings that real collections have.

Every encoding keeps the content: once standardised (rotated as EXIF says, converted to RGB), it shows what was drawn.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import Drawing

EXIF_ORIENTATION_TAG = 0x0112
EXIF_ROTATE_90_CLOCKWISE = (
    6  # EXIF: the stored rows are the upright image's columns; show it turned by 90 degrees clockwise
)
_UNUSUAL_ENCODINGS = {3: "exif_rotated", 7: "cmyk", 10: "palette", 13: "gray16"}


def choose_encoding(drawing: Drawing, image_index: int) -> str:
    """Return the encoding of an image: four of sixteen are unusual, others PNG and JPEG in turn, photos JPEG."""
    encoding = _UNUSUAL_ENCODINGS.get(
        image_index % 16, "png" if image_index % 2 == 0 and not drawing.is_photo else "jpeg"
    )
    return "jpeg" if encoding == "gray16" and drawing.needs_colour else encoding


def encode_drawing(drawing: Drawing, encoding: str) -> tuple[str, bytes]:
    """Return (file name suffix, bytes) of the drawing's image in one of the styles `choose_encoding` gives."""
    image, buffer = drawing.image, BytesIO()
    if encoding == "exif_rotated":
        exif = Image.Exif()
        exif[EXIF_ORIENTATION_TAG] = EXIF_ROTATE_90_CLOCKWISE
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=90, exif=exif)
    elif encoding == "cmyk":
        image.convert("CMYK").save(buffer, "JPEG", quality=90)
    elif encoding == "jpeg":
        image.save(buffer, "JPEG", quality=88)
    elif encoding == "palette":
        image.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", compress_level=4)
    elif encoding == "gray16":
        image_16bit = image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
        image_16bit.save(buffer, "PNG", compress_level=4)
    else:
        image.save(buffer, "PNG", compress_level=4)
    return (".jpg" if encoding in ("exif_rotated", "cmyk", "jpeg") else ".png"), buffer.getvalue()
