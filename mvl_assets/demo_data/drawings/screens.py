"""Screens of programs: a phone with settings to read; a web page to be written down as HTML (`webpages` draws it)."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.demo_data.drawings.webpages import draw_web_page
from mvl_assets.media.drawing import COLOURS, create_canvas, draw_text

PROGRAMS = ("Settings", "Weather", "Timer", "Library", "Recipes", "Train times")
SWITCHES = ("Sound", "Dark mode", "Location", "Backups", "Large text", "Alerts", "Airplane mode")
BUTTONS = ("Save", "Send", "Search", "Log out", "Continue", "Buy ticket")


def draw_phone_screen(rng: Random) -> Drawing:
    """Draw a title bar, a list of switches that are on or off, and one button."""
    program, button = rng.choice(PROGRAMS), rng.choice(BUTTONS)
    names = rng.sample(SWITCHES, sample_int(rng, 3, 5))
    is_on = {name: rng.random() < 0.5 for name in names}
    width, size = sample_int(rng, 240, 320, 20), 17
    image, draw = create_canvas((width, 110 + 44 * len(names)), (248, 248, 250))
    bar_colour = COLOURS[rng.choice(["blue", "green", "purple", "black"])]
    draw.rectangle((0, 0, width, 44), fill=bar_colour)
    draw_text(draw, (14, 22), program, size + 3, (255, 255, 255), anchor="lm")
    for n, name in enumerate(names):
        y = 66 + 44 * n
        draw_text(draw, (14, y), name, size, anchor="lm")
        x = width - 58
        draw.rounded_rectangle((x, y - 11, x + 44, y + 11), 11, fill=(52, 168, 83) if is_on[name] else (190, 190, 196))
        knob = x + 33 if is_on[name] else x + 11
        draw.ellipse((knob - 9, y - 9, knob + 9, y + 9), fill=(255, 255, 255))
        draw.line((14, y + 22, width - 14, y + 22), fill=(222, 222, 226))
    button_y = 66 + 44 * len(names)
    draw.rounded_rectangle((width / 2 - 66, button_y - 8, width / 2 + 66, button_y + 26), 8, fill=bar_colour)
    draw_text(draw, (width / 2, button_y + 9), button, size, (255, 255, 255), anchor="mm")
    states_text = join_with_and([f"{name} is {'on' if is_on[name] else 'off'}" for name in names])
    queried_switch = rng.choice(names)
    qa_pairs = (
        DrawnQAPair("What is the title of the screen?", program, f"The bar at the top says {program}."),
        DrawnQAPair("What does the button at the bottom say?", button, f"The button below the list says {button}."),
        DrawnQAPair(
            f"Is {queried_switch} switched on?",
            "yes" if is_on[queried_switch] else "no",
            f"Of the switches, {states_text}.",
        ),
        DrawnQAPair("How many switches does the screen have?", str(len(names)), f"They are {join_with_and(names)}."),
    )
    caption = f'A screen titled "{program}" where {states_text}, with the button "{button}".'
    return Drawing(image, qa_pairs, caption)


def draw_html_page(rng: Random) -> Drawing:
    """Draw a web page that is asked for its HTML."""
    page_drawing, html = draw_web_page(rng)
    qa_pair = DrawnQAPair(
        "Write the HTML that makes this page.", html, f"{page_drawing.caption} The HTML repeats it block by block."
    )
    return Drawing(page_drawing.image, (qa_pair,), page_drawing.caption)
