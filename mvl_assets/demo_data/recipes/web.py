"""The sources from the web: pages, chats, tables, screenshots."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.webpages import page
from mvl_assets.demo_data.recipes.recipe import Recipe


def _web_page(rng: Random, index: int, part: int) -> c.Content:
    """A screenshot answered by its HTML."""
    drawing, html = page(rng)
    return c.Content((("Write the page.", html),), (drawing,))


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "wit",
        "wit",
        c.paired,
        ("missing_picture", "no_caption", "bad_csv", "truncated_picture", "missing_picture", "not_a_picture"),
    ),
    Recipe(
        "m3it_flan",
        "m3it",
        c.asked(c.everyday, 1, False),
        ("bad_base64", "missing_field", "bad_json", "truncated_picture"),
    ),
    Recipe(
        "wildvision_chat",
        "wildvision",
        c.discussed(c.everyday),
        ("no_answer", "missing_picture", "unknown_role", "truncated_picture"),
        key="{number:032x}",
    ),
    Recipe(
        "laion_gpt4v",
        "url_captions",
        c.described(c.photos_first),
        ("missing_picture", "not_a_picture", "missing_picture", "truncated_picture", "no_caption"),
    ),
    Recipe(
        "design2code",
        "design2code",
        _web_page,
        ("missing_picture", "bad_utf8", "missing_html", "empty_answer", "truncated_picture"),
        key="{number}",
        picture_name="{number}",
        png_only=True,
    ),
)
