"""Recipes of sources from the web: pages, chats, tables, screenshots."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.webpages import draw_web_page
from mvl_assets.demo_data.recipes.recipe import DemoRecipe


def _build_web_page_row(rng: Random, image_index: int, row_in_image: int) -> c.RowContent:
    """Return a screenshot answered by its HTML."""
    drawing, html = draw_web_page(rng)
    return c.RowContent((("Write the page.", html),), (drawing,))


RECIPES: tuple[DemoRecipe, ...] = (
    DemoRecipe(
        "wit",
        "wit",
        c.build_short_caption,
        ("missing_image", "no_caption", "bad_csv", "truncated_image", "missing_image", "not_an_image"),
    ),
    DemoRecipe(
        "m3it_flan",
        "m3it",
        c.make_qa_builder(c.draw_everyday_image, 1, False),
        ("bad_base64", "missing_field", "bad_json", "truncated_image"),
    ),
    DemoRecipe(
        "wildvision_chat",
        "wildvision",
        c.make_caption_and_qa_builder(c.draw_everyday_image),
        ("no_answer", "missing_image", "unknown_role", "truncated_image"),
        row_id_template="{number:032x}",
    ),
    DemoRecipe(
        "laion_gpt4v",
        "url_captions",
        c.make_caption_builder(c.draw_photo_or_scene),
        ("missing_image", "not_an_image", "missing_image", "truncated_image", "no_caption"),
    ),
    DemoRecipe(
        "design2code",
        "design2code",
        _build_web_page_row,
        ("missing_image", "bad_utf8", "missing_html", "empty_answer", "truncated_image"),
        row_id_template="{number}",
        image_name_template="{number}",
        png_only=True,
    ),
)
