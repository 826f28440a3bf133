"""Pages to be read: receipts, notices, forms, street signs and wide banners."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import (
    INK,
    PAPERS,
    RGB,
    Drawing,
    Pair,
    between,
    canvas,
    listing,
    text,
    width_of,
)
from mvl_assets.demo_data.drawings.tables import NAMES, money

SHOPS = ("Corner Bakery", "Blue Door Books", "Harbour Hardware", "Green Lane Grocer", "Moss & Fern Plants")
GOODS = ("bread", "tea", "apples", "candles", "string", "paint", "seeds", "jam", "soap", "nails", "cheese", "honey")
STREETS = ("Mill Lane", "Canal Street", "Orchard Road", "Station Square", "Bell Yard", "Quarry Hill")
EVENTS = ("Choir practice", "Book swap", "Chess evening", "Repair evening", "Film night", "First aid course")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WARNINGS = ("WET PAINT", "NO PARKING", "BEWARE OF THE DOG", "MIND THE STEP", "RING THE BELL", "KEEP LEFT")


def document(rng: Random) -> Drawing:
    """A receipt, a notice or a form."""
    return rng.choice((receipt, notice, form))(rng)


def receipt(rng: Random) -> Drawing:
    shop, number = rng.choice(SHOPS), between(rng, 1000, 9999)
    goods = rng.sample(GOODS, between(rng, 3, 6))
    cents = dict(zip(goods, rng.sample(range(50, 900, 5), len(goods)), strict=True))
    total = sum(cents.values())
    size = between(rng, 15, 21, 2)
    wide, high = size * 18, size * 2 * (len(goods) + 5)
    picture, draw = canvas((wide, high), (252, 252, 248))
    text(draw, (wide / 2, size), shop, size + 4, anchor="ma")
    text(draw, (wide / 2, size * 3), f"Receipt no. {number}", size, anchor="ma")
    for n, (good, price) in enumerate([*cents.items(), ("TOTAL", total)]):
        y = size * (5 + 2 * n) + (size if good == "TOTAL" else 0)
        if good == "TOTAL":
            draw.line((size, y - size * 0.4, wide - size, y - size * 0.4), fill=INK, width=2)
        text(draw, (size, y), good, size)
        text(draw, (wide - size, y), money(price), size, anchor="ra")
    asked = rng.choice(goods)
    dearest = max(cents, key=cents.__getitem__)
    bought = listing([f"{good} for {money(price)}" for good, price in cents.items()])
    pairs = (
        Pair("What is the total on the receipt?", money(total), f"The last line reads TOTAL {money(total)}."),
        Pair("Which shop issued the receipt?", shop, f'The heading of the receipt is "{shop}".'),
        Pair(f"How much did the {asked} cost?", money(cents[asked]), f"The line {asked} reads {money(cents[asked])}."),
        Pair("What is the number of the receipt?", str(number), f'Below the shop it says "Receipt no. {number}".'),
        Pair("How many different things were bought?", str(len(goods)), f"The lines list {bought}."),
        Pair("Which item was the most expensive?", dearest, f"The lines list {bought}."),
    )
    return Drawing(picture, pairs, f"A receipt of {shop}: {bought}, in total {money(total)}.", needs_colour=False)


def notice(rng: Random) -> Drawing:
    event, day, street, host = rng.choice(EVENTS), rng.choice(DAYS), rng.choice(STREETS), rng.choice(NAMES)
    hour, house, fee = between(rng, 4, 9), between(rng, 1, 90), between(rng, 2, 12)
    size = between(rng, 16, 24, 2)
    lines = [f"Every {day} at {hour} pm", f"{house} {street}", f"Entry: {fee} dollars", f"Ask for {host}"]
    wide = max(width_of(line, size) for line in lines) + 6 * size
    wide = max(wide, width_of(event, size + 12) + 4 * size)
    picture, draw = canvas((wide, size * (6 + 2 * len(lines))), rng.choice(PAPERS))
    draw.rectangle((6, 6, wide - 7, picture.height - 7), outline=INK, width=3)
    text(draw, (wide / 2, size * 1.5), event, size + 12, anchor="ma")
    for n, line in enumerate(lines):
        text(draw, (wide / 2, size * (5 + 2 * n)), line, size, anchor="ma")
    pairs = (
        Pair("On which day does it take place?", day, f'The notice says "{lines[0]}".'),
        Pair("What is the event called?", event, f'The heading in large letters is "{event}".'),
        Pair("What is the address?", lines[1], f'The second line below the heading gives "{lines[1]}".'),
        Pair("How many dollars is the entry?", str(fee), f'The notice says "{lines[2]}".'),
        Pair("Whom should one ask for?", host, f'The last line says "{lines[3]}".'),
        Pair("At what time does it begin?", f"{hour} pm", f'The notice says "{lines[0]}".'),
    )
    caption = f'A framed notice reads "{event}. {". ".join(lines)}."'
    return Drawing(picture, pairs, caption, needs_colour=False)


def form(rng: Random) -> Drawing:
    name, street = rng.choice(NAMES), rng.choice(STREETS)
    values = {
        "Name": f"{name} {rng.choice(('Berg', 'Costa', 'Novak', 'Okoro', 'Sato', 'Weiss'))}",
        "Street": f"{between(rng, 1, 90)} {street}",
        "Member since": str(between(rng, 1998, 2023)),
        "Card number": f"{between(rng, 100, 999)}-{between(rng, 10, 99)}",
    }
    size = between(rng, 15, 21, 2)
    picture, draw = canvas((size * 24, size * (5 + 3 * len(values))), rng.choice(PAPERS))
    title = rng.choice(("Library card", "Boat club", "Allotment register", "Swimming pass"))
    text(draw, (size, size), title, size + 8)
    for n, (field, value) in enumerate(values.items()):
        y = size * (5 + 3 * n)
        text(draw, (size, y), f"{field}:", size, (90, 90, 96))
        text(draw, (size * 9, y), value, size)
        draw.line((size * 9, y + size * 1.5, size * 23, y + size * 1.5), fill=(150, 150, 150))
    pairs = tuple(
        Pair(f'What is written in the field "{field}"?', value, f'The line "{field}:" is filled in with {value}.')
        for field, value in values.items()
    )
    title_pair = Pair("What is the title of the form?", title, f'Above the fields it says "{title}".')
    filled = listing([f"{field}: {value}" for field, value in values.items()])
    return Drawing(picture, (*pairs, title_pair), f'A form titled "{title}" with {filled}.', needs_colour=False)


def sign(rng: Random) -> Drawing:
    """A street sign or a warning: little text in large letters on colour."""
    words = rng.choice((*WARNINGS, *(f"{between(rng, 1, 90)} {street}" for street in STREETS)))
    boards: tuple[tuple[str, RGB, RGB], ...] = (
        ("blue", (30, 80, 200), (255, 255, 255)),
        ("yellow", (250, 215, 40), (20, 20, 20)),
        ("green", (30, 120, 60), (255, 255, 255)),
        ("white", (250, 250, 250), (20, 20, 20)),
    )
    name, back, ink = rng.choice(boards)
    size = between(rng, 24, 44, 4)
    wide, high = width_of(words, size) + 4 * size, size * 5
    picture, draw = canvas((wide, high), (140, 150, 160))
    draw.rectangle((size * 0.6, size * 0.8, wide - size * 0.6, high - size * 0.8), fill=back, outline=ink, width=3)
    text(draw, (wide / 2, high / 2), words, size, ink, anchor="mm")
    count = len(words.split())
    pairs = (
        Pair("What does the sign say?", words, f'The letters on the {name} board read "{words}".'),
        Pair("What colour is the board of the sign?", name, f"The board behind the letters is {name}."),
        Pair("How many words or numbers are on the sign?", str(count), f"Separated by spaces it reads {words}."),
        Pair("What is the last word on the sign?", words.split()[-1], f'The sign reads "{words}".'),
    )
    return Drawing(picture, pairs, f'A {name} sign that reads "{words}".')


def banner(rng: Random) -> Drawing:
    """One long line of text in a picture far wider than 7:1."""
    shop, day, street = rng.choice(SHOPS), rng.choice(DAYS), rng.choice(STREETS)
    words = f"{shop} opens its doors on {day} at {street}"
    size = between(rng, 26, 38, 4)
    picture, draw = canvas((width_of(words, size) + 2 * size, int(size * 2.2)), rng.choice(PAPERS))
    text(draw, (size, size * 1.1), words, size, anchor="lm")
    read = f'The banner reads "{words}".'
    pairs = (
        Pair("Which shop is named on the banner?", shop, read),
        Pair("On which day does it open?", day, read),
        Pair("Where does it open?", street, read),
        Pair("What does the banner say?", words, "The whole text stands on one line."),
    )
    return Drawing(picture, pairs, f'A long banner that reads "{words}".', needs_colour=False)
