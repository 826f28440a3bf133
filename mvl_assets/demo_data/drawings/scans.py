"""Images that represent measurements: a scan with bright spots, a map of areas by value, a photo of poor quality."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageEnhance, ImageFilter

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, pluralize, sample_int
from mvl_assets.demo_data.drawings.photos import load_photo
from mvl_assets.media.drawing import INK, create_canvas, draw_text

AREA_NAMES = ("Nord", "Vale", "Port", "Moor", "Ford", "Cliff", "Glen", "Bay", "Isle", "Heath", "Dale", "Marsh")
LEVEL_COLOURS = {"low": (222, 235, 247), "middle": (107, 174, 214), "high": (8, 69, 148)}


def draw_scan(rng: Random) -> Drawing:
    """Draw a grey cross-section with one to four bright spots on one side, as a lesson about scans would sketch it."""
    side, n_spots = sample_int(rng, 200, 280, 20), sample_int(rng, 1, 4)
    is_left = rng.random() < 0.5
    image, draw = create_canvas((side, side), (8, 8, 10))
    draw.ellipse(
        (side * 0.12, side * 0.08, side * 0.88, side * 0.92), fill=(92, 92, 96), outline=(200, 200, 204), width=5
    )
    draw.line((side / 2, side * 0.14, side / 2, side * 0.86), fill=(60, 60, 64), width=2)
    for n in range(n_spots):
        x, y = side * (0.34 if is_left else 0.66), side * (0.26 + 0.16 * n)
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(240, 240, 240))
    half = "left" if is_left else "right"
    rationale = f"The scan shows {pluralize(n_spots, 'bright spot')} in the {half} half of the picture."
    numbers = tuple(str(number) for number in (n_spots, n_spots + 1, n_spots + 2, n_spots + 3))
    qa_pairs = (
        DrawnQAPair("How many bright spots does the scan show?", str(n_spots), rationale, numbers),
        DrawnQAPair(
            "In which half of the picture do the bright spots lie?",
            half,
            rationale,
            (half, "right" if is_left else "left"),
        ),
        DrawnQAPair("Is there more than one bright spot?", "yes" if n_spots > 1 else "no", rationale, ("yes", "no")),
    )
    return Drawing(image, qa_pairs, f"A sketch of a scan. {rationale}", needs_colour=False)


def draw_tile_map(rng: Random) -> Drawing:
    """Draw twelve areas as tiles, shaded by one of three levels that a legend names."""
    names = rng.sample(AREA_NAMES, 12)
    levels = [rng.choice(list(LEVEL_COLOURS)) for _ in names]
    levels[:3] = rng.sample(list(LEVEL_COLOURS), 3)
    tile = sample_int(rng, 56, 72, 4)
    image, draw = create_canvas((tile * 4 + 90, tile * 3 + 34), (255, 255, 255))
    draw_text(draw, (8, 8), "Rainfall by area", 16)
    for n, (name, level) in enumerate(zip(names, levels, strict=True)):
        x, y = 6 + n % 4 * tile, 32 + n // 4 * tile
        draw.rectangle((x, y, x + tile - 3, y + tile - 3), fill=LEVEL_COLOURS[level], outline=INK)
        ink = (255, 255, 255) if level == "high" else INK
        draw_text(draw, (x + tile / 2, y + tile / 2), name, 14, ink, anchor="mm")
    for n, (level, colour) in enumerate(LEVEL_COLOURS.items()):
        y = 40 + n * 24
        draw.rectangle((tile * 4 + 14, y, tile * 4 + 30, y + 16), fill=colour, outline=INK)
        draw_text(draw, (tile * 4 + 36, y), level, 14)
    queried_level, queried_index = rng.choice(list(LEVEL_COLOURS)), rng.randrange(12)
    matching_areas = [name for name, level in zip(names, levels, strict=True) if level == queried_level]
    rationale = f"The tiles in the shade that the legend calls {queried_level} are {join_with_and(matching_areas)}."
    qa_pairs = (
        DrawnQAPair(f"Which areas have a {queried_level} rainfall?", ", ".join(matching_areas), rationale),
        DrawnQAPair(f"How many areas have a {queried_level} rainfall?", str(len(matching_areas)), rationale),
        DrawnQAPair(
            f"How much rain falls in {names[queried_index]}?",
            levels[queried_index],
            f"{names[queried_index]} has the shade of {levels[queried_index]}.",
        ),
    )
    return Drawing(image, qa_pairs, f"A map of twelve areas titled Rainfall by area. {rationale}")


def draw_degraded_photo(rng: Random, image_index: int) -> Drawing:
    """Draw a small photo as it is, or made blurred, dark or faded; the questions are about its quality."""
    photo_image = load_photo(rng, image_index).image
    photo_image.thumbnail((256, 256))
    fault = ("none", "blurred", "dark", "faded")[image_index % 4]
    if fault == "blurred":
        photo_image = photo_image.filter(ImageFilter.GaussianBlur(4))
    elif fault == "dark":
        photo_image = ImageEnhance.Brightness(photo_image).enhance(0.25)
    elif fault == "faded":
        photo_image = ImageEnhance.Contrast(photo_image).enhance(0.25)
    quality = "clear and well lit" if fault == "none" else fault
    caption = f"The photo is {quality}."
    qa_pairs = (
        DrawnQAPair("How would you rate the quality of this picture?", "good" if fault == "none" else "poor", caption),
        DrawnQAPair("What is the main fault of this picture?", fault, caption),
        DrawnQAPair(
            "Describe the quality of the picture.", caption, "It is judged by its sharpness, light and contrast."
        ),
    )
    return Drawing(photo_image, qa_pairs, caption, is_photo=True)


def draw_meme(rng: Random, image_index: int) -> Drawing:
    """Draw a photo with words laid over it, in the manner of a meme."""
    meme_text = rng.choice(
        ("WHEN THE TEA IS READY", "MONDAY AGAIN", "STILL NO RAIN", "ONE MORE PAGE", "NO BISCUITS LEFT")
    )
    photo_image: Image.Image = load_photo(rng, image_index).image
    photo_image.thumbnail((320, 320))
    image, draw = create_canvas((photo_image.width, photo_image.height + 40), (255, 255, 255))
    image.paste(photo_image, (0, 40))
    draw_text(
        draw,
        (photo_image.width / 2, 20),
        meme_text,
        max(12, min(22, photo_image.width // len(meme_text) + 4)),
        anchor="mm",
    )
    rationale = f'Above the photo it says "{meme_text}".'
    qa_pairs = (
        DrawnQAPair("What is written on the picture?", meme_text, rationale),
        DrawnQAPair("Is this picture hateful? Answer yes or no.", "no", f"{rationale} Nobody is attacked."),
    )
    return Drawing(image, qa_pairs, f"A photo with words. {rationale}", is_photo=True)
