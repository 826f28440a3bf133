"""Plain web pages: the HTML and an image of it, drawn block by block from the same parts."""

from __future__ import annotations

from html import escape
from random import Random

from mvl_assets.demo_data.drawings.documents import DAYS, EVENTS, SHOPS, STREETS
from mvl_assets.demo_data.drawings.drawing import Drawing, sample_int
from mvl_assets.media.drawing import COLOURS, INK, PAPERS, RGB, create_canvas, draw_text

PAGE_WIDTH = 480
PLACEHOLDER = "rick.jpg"
"""The file that Design2Code uses in place of every image."""


def draw_web_page(rng: Random) -> tuple[Drawing, str]:
    """Draw a page with header, menu, paragraphs and footer, now and then an image, and return its HTML too."""
    shop, colour_name = rng.choice(SHOPS), rng.choice(("red", "green", "blue", "purple"))
    menu = rng.sample(("Home", "News", "Prices", "Contact", "About us"), sample_int(rng, 2, 4))
    lines = [
        f"{rng.choice(EVENTS)} on {rng.choice(DAYS)} at {sample_int(rng, 4, 9)} pm",
        f"You find us at {sample_int(rng, 1, 90)} {rng.choice(STREETS)}",
        f"Open since {sample_int(rng, 1950, 2020)}",
    ][: sample_int(rng, 1, 3)]
    has_image = rng.random() < 0.5
    paper = rng.choice(PAPERS)
    drawing = _render_page(shop, menu, lines, COLOURS[colour_name], paper, has_image)
    return drawing, _render_html(shop, menu, lines, COLOURS[colour_name], paper, has_image)


def _render_page(shop: str, menu: list[str], lines: list[str], colour: RGB, paper: RGB, has_image: bool) -> Drawing:
    height = 130 + 30 * len(lines) + (110 if has_image else 0)
    image, draw = create_canvas((PAGE_WIDTH, height), paper)
    draw.rectangle((0, 0, PAGE_WIDTH, 60), fill=colour)
    draw_text(draw, (20, 16), shop, 26, (255, 255, 255))
    draw_text(draw, (20, 72), "   ".join(menu), 14, colour)
    for number, line in enumerate(lines):
        draw_text(draw, (20, 104 + 30 * number), line, 16)
    if has_image:
        top = 104 + 30 * len(lines)
        draw.rectangle((20, top, 180, top + 100), fill=(110, 140, 190), outline=INK)
    return Drawing(image, (), f"The web page of {shop}.")


def _render_html(shop: str, menu: list[str], lines: list[str], colour: RGB, paper: RGB, has_image: bool) -> str:
    links = "\n".join(f'    <a href="#">{escape(entry)}</a>' for entry in menu)
    paragraphs = "\n".join(f"  <p>{escape(line)}</p>" for line in lines)
    image = f'\n  <img src="{PLACEHOLDER}" width="160" height="100">' if has_image else ""
    return (
        '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(shop)}</title>\n<style>\n"
        f"body {{ margin: 0; width: {PAGE_WIDTH}px; background: rgb{paper}; font-family: sans-serif; }}\n"
        f"header {{ background: rgb{colour}; color: white; font-size: 26px; padding: 16px 20px; }}\n"
        f"nav {{ padding: 10px 20px; font-size: 14px; }}\nnav a {{ color: rgb{colour}; margin-right: 12px; }}\n"
        "p, img { margin: 8px 20px; }\n</style>\n</head>\n<body>\n"
        f"  <header>{escape(shop)}</header>\n  <nav>\n{links}\n  </nav>\n{paragraphs}{image}\n</body>\n</html>\n"
    )
