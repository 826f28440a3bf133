"""Pictures that stand for measurements: a scan with bright spots, a map of areas by value, a photo of poor quality."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageEnhance, ImageFilter

from mvl_assets.demo_data.drawings.drawing import INK, Drawing, Pair, between, canvas, listing, plural, text
from mvl_assets.demo_data.drawings.photos import photo

AREAS = ("Nord", "Vale", "Port", "Moor", "Ford", "Cliff", "Glen", "Bay", "Isle", "Heath", "Dale", "Marsh")
SHADES = {"low": (222, 235, 247), "middle": (107, 174, 214), "high": (8, 69, 148)}


def scan(rng: Random) -> Drawing:
    """A grey cross-section with one to four bright spots on one side, as a lesson about scans would sketch it."""
    side, spots = between(rng, 200, 280, 20), between(rng, 1, 4)
    left = rng.random() < 0.5
    picture, draw = canvas((side, side), (8, 8, 10))
    draw.ellipse(
        (side * 0.12, side * 0.08, side * 0.88, side * 0.92), fill=(92, 92, 96), outline=(200, 200, 204), width=5
    )
    draw.line((side / 2, side * 0.14, side / 2, side * 0.86), fill=(60, 60, 64), width=2)
    for n in range(spots):
        x, y = side * (0.34 if left else 0.66), side * (0.26 + 0.16 * n)
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(240, 240, 240))
    where = "left" if left else "right"
    told = f"The scan shows {plural(spots, 'bright spot')} in the {where} half of the picture."
    numbers = tuple(str(number) for number in (spots, spots + 1, spots + 2, spots + 3))
    pairs = (
        Pair("How many bright spots does the scan show?", str(spots), told, numbers),
        Pair(
            "In which half of the picture do the bright spots lie?", where, told, (where, "right" if left else "left")
        ),
        Pair("Is there more than one bright spot?", "yes" if spots > 1 else "no", told, ("yes", "no")),
    )
    return Drawing(picture, pairs, f"A sketch of a scan. {told}", needs_colour=False)


def tile_map(rng: Random) -> Drawing:
    """Twelve areas as tiles, shaded by one of three levels that a legend names."""
    names = rng.sample(AREAS, 12)
    levels = [rng.choice(list(SHADES)) for _ in names]
    levels[:3] = rng.sample(list(SHADES), 3)
    tile = between(rng, 56, 72, 4)
    picture, draw = canvas((tile * 4 + 90, tile * 3 + 34), (255, 255, 255))
    text(draw, (8, 8), "Rainfall by area", 16)
    for n, (name, level) in enumerate(zip(names, levels, strict=True)):
        x, y = 6 + n % 4 * tile, 32 + n // 4 * tile
        draw.rectangle((x, y, x + tile - 3, y + tile - 3), fill=SHADES[level], outline=INK)
        ink = (255, 255, 255) if level == "high" else INK
        text(draw, (x + tile / 2, y + tile / 2), name, 14, ink, anchor="mm")
    for n, (level, colour) in enumerate(SHADES.items()):
        y = 40 + n * 24
        draw.rectangle((tile * 4 + 14, y, tile * 4 + 30, y + 16), fill=colour, outline=INK)
        text(draw, (tile * 4 + 36, y), level, 14)
    wanted, asked = rng.choice(list(SHADES)), rng.randrange(12)
    found = [name for name, level in zip(names, levels, strict=True) if level == wanted]
    told = f"The tiles in the shade that the legend calls {wanted} are {listing(found)}."
    pairs = (
        Pair(f"Which areas have a {wanted} rainfall?", ", ".join(found), told),
        Pair(f"How many areas have a {wanted} rainfall?", str(len(found)), told),
        Pair(
            f"How much rain falls in {names[asked]}?",
            levels[asked],
            f"{names[asked]} has the shade of {levels[asked]}.",
        ),
    )
    return Drawing(picture, pairs, f"A map of twelve areas titled Rainfall by area. {told}")


def poor_photo(rng: Random, index: int) -> Drawing:
    """A small photo as it is, or made blurred, dark or faded; the questions are about its quality."""
    shown = photo(rng, index).picture
    shown.thumbnail((256, 256))
    fault = ("none", "blurred", "dark", "faded")[index % 4]
    if fault == "blurred":
        shown = shown.filter(ImageFilter.GaussianBlur(4))
    elif fault == "dark":
        shown = ImageEnhance.Brightness(shown).enhance(0.25)
    elif fault == "faded":
        shown = ImageEnhance.Contrast(shown).enhance(0.25)
    words = "clear and well lit" if fault == "none" else fault
    told = f"The photo is {words}."
    pairs = (
        Pair("How would you rate the quality of this picture?", "good" if fault == "none" else "poor", told),
        Pair("What is the main fault of this picture?", fault, told),
        Pair("Describe the quality of the picture.", told, "It is judged by its sharpness, light and contrast."),
    )
    return Drawing(shown, pairs, told, photo=True)


def captioned_photo(rng: Random, index: int) -> Drawing:
    """A photo with words laid over it, in the manner of a meme."""
    words = rng.choice(("WHEN THE TEA IS READY", "MONDAY AGAIN", "STILL NO RAIN", "ONE MORE PAGE", "NO BISCUITS LEFT"))
    shown: Image.Image = photo(rng, index).picture
    shown.thumbnail((320, 320))
    picture, draw = canvas((shown.width, shown.height + 40), (255, 255, 255))
    picture.paste(shown, (0, 40))
    text(draw, (shown.width / 2, 20), words, max(12, min(22, shown.width // len(words) + 4)), anchor="mm")
    read = f'Above the photo it says "{words}".'
    pairs = (
        Pair("What is written on the picture?", words, read),
        Pair("Is this picture hateful? Answer yes or no.", "no", f"{read} Nobody is attacked."),
    )
    return Drawing(picture, pairs, f"A photo with words. {read}", photo=True)
