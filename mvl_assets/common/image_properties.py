"""Properties of an image that are stored as columns: size, format, sides, hash."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageProperties:
    """Properties that a full decode of an image shows; the fields are columns of the table `images`.

    Attributes:
        size: Bytes of the file.
        format: Pillow's name of the file format.
        width: Pixels as a viewer shows the image, after its EXIF rotation.
        height: The same.
        n_frames: 1 for a still image.
        mode: Pillow's name of the pixel format.
        phash: 64-bit perceptual hash (ImageHash's `phash`) of the first frame as a viewer shows it, 16 hex digits; None
            where it was not computed.
        pdq: 256-bit PDQ hash of the same, 64 hex digits; None where it was not computed.
        pdq_quality: How much structure PDQ sees, from 0 (blank) to 100.
        trimmed_pdq: PDQ hash without the uniform border; None for an image without one.
        sharpness: Variance of the Laplacian (`media.sharpness`), near 0 for a blurred image; None where not measured.
    """

    size: int
    format: str
    width: int
    height: int
    n_frames: int
    mode: str
    phash: str | None
    pdq: str | None = None
    pdq_quality: int | None = None
    trimmed_pdq: str | None = None
    sharpness: float | None = None
