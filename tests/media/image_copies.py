"""An image with structure, and what others make of it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps


def draw_waves(seed: int = 0, size: tuple[int, int] = (360, 280)) -> Image.Image:
    """A picture of smooth noise, as a photograph is."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def draw_form(name: str) -> Image.Image:
    """A page of black text on white."""
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=28)
    for row, text in enumerate(("Order form", name, "Paid in cash", name[::-1])):
        draw.text((30, 30 + 60 * row), text, fill="black", font=font)
    return image


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def add_watermark(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=30)
    centre = (image.width / 2, image.height / 2)
    ImageDraw.Draw(layer).text(centre, "SAMPLE", fill=(255, 255, 255, 120), font=font, anchor="mm")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


COPIES = {
    "reencoded": lambda image: encode(image, "JPEG", quality=40),
    "halved": lambda image: encode(image.resize((image.width // 2, image.height // 2)), "JPEG", quality=85),
    "grey": lambda image: encode(image.convert("L"), "JPEG", quality=85),
    "watermarked": lambda image: encode(add_watermark(image), "JPEG", quality=85),
    "framed": lambda image: encode(ImageOps.expand(image, 20, "black"), "JPEG", quality=85),
}
