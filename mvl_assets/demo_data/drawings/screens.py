"""Screens of programs: a phone with settings to read; a web page to be written down as HTML (`webpages` draws it)."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import COLOURS, Drawing, Pair, between, canvas, listing, text
from mvl_assets.demo_data.drawings.webpages import page

PROGRAMS = ("Settings", "Weather", "Timer", "Library", "Recipes", "Train times")
SWITCHES = ("Sound", "Dark mode", "Location", "Backups", "Large text", "Alerts", "Airplane mode")
BUTTONS = ("Save", "Send", "Search", "Log out", "Continue", "Buy ticket")


def phone(rng: Random) -> Drawing:
    """A title bar, a list of switches that are on or off, and one button."""
    program, button = rng.choice(PROGRAMS), rng.choice(BUTTONS)
    names = rng.sample(SWITCHES, between(rng, 3, 5))
    on = {name: rng.random() < 0.5 for name in names}
    wide, size = between(rng, 240, 320, 20), 17
    picture, draw = canvas((wide, 110 + 44 * len(names)), (248, 248, 250))
    bar = COLOURS[rng.choice(["blue", "green", "purple", "black"])]
    draw.rectangle((0, 0, wide, 44), fill=bar)
    text(draw, (14, 22), program, size + 3, (255, 255, 255), anchor="lm")
    for n, name in enumerate(names):
        y = 66 + 44 * n
        text(draw, (14, y), name, size, anchor="lm")
        x = wide - 58
        draw.rounded_rectangle((x, y - 11, x + 44, y + 11), 11, fill=(52, 168, 83) if on[name] else (190, 190, 196))
        knob = x + 33 if on[name] else x + 11
        draw.ellipse((knob - 9, y - 9, knob + 9, y + 9), fill=(255, 255, 255))
        draw.line((14, y + 22, wide - 14, y + 22), fill=(222, 222, 226))
    foot = 66 + 44 * len(names)
    draw.rounded_rectangle((wide / 2 - 66, foot - 8, wide / 2 + 66, foot + 26), 8, fill=bar)
    text(draw, (wide / 2, foot + 9), button, size, (255, 255, 255), anchor="mm")
    states = listing([f"{name} is {'on' if on[name] else 'off'}" for name in names])
    asked = rng.choice(names)
    pairs = (
        Pair("What is the title of the screen?", program, f"The bar at the top says {program}."),
        Pair("What does the button at the bottom say?", button, f"The button below the list says {button}."),
        Pair(f"Is {asked} switched on?", "yes" if on[asked] else "no", f"Of the switches, {states}."),
        Pair("How many switches does the screen have?", str(len(names)), f"They are {listing(names)}."),
    )
    caption = f'A screen titled "{program}" where {states}, with the button "{button}".'
    return Drawing(picture, pairs, caption)


def page_as_html(rng: Random) -> Drawing:
    """A web page that is asked for its HTML."""
    shown, html = page(rng)
    pair = Pair("Write the HTML that makes this page.", html, f"{shown.caption} The HTML repeats it block by block.")
    return Drawing(shown.picture, (pair,), shown.caption)
