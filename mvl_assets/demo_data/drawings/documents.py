"""Pages of text: receipts, notices, forms, street signs and wide banners."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.demo_data.drawings.tables import PERSON_NAMES, format_dollars
from mvl_assets.media.drawing import INK, PAPERS, RGB, create_canvas, draw_text, measure_text_width

SHOPS = ("Corner Bakery", "Blue Door Books", "Harbour Hardware", "Green Lane Grocer", "Moss & Fern Plants")
GOODS = ("bread", "tea", "apples", "candles", "string", "paint", "seeds", "jam", "soap", "nails", "cheese", "honey")
STREETS = ("Mill Lane", "Canal Street", "Orchard Road", "Station Square", "Bell Yard", "Quarry Hill")
EVENTS = ("Choir practice", "Book swap", "Chess evening", "Repair evening", "Film night", "First aid course")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WARNINGS = ("WET PAINT", "NO PARKING", "BEWARE OF THE DOG", "MIND THE STEP", "RING THE BELL", "KEEP LEFT")


def draw_document(rng: Random) -> Drawing:
    """Draw a receipt, a notice or a form."""
    return rng.choice((draw_receipt, draw_notice, draw_form))(rng)


def draw_receipt(rng: Random) -> Drawing:
    """Draw a receipt."""
    shop, number = rng.choice(SHOPS), sample_int(rng, 1000, 9999)
    goods = rng.sample(GOODS, sample_int(rng, 3, 6))
    cents = dict(zip(goods, rng.sample(range(50, 900, 5), len(goods)), strict=True))
    total = sum(cents.values())
    size = sample_int(rng, 15, 21, 2)
    width, height = size * 18, size * 2 * (len(goods) + 5)
    image, draw = create_canvas((width, height), (252, 252, 248))
    draw_text(draw, (width / 2, size), shop, size + 4, anchor="ma")
    draw_text(draw, (width / 2, size * 3), f"Receipt no. {number}", size, anchor="ma")
    for n, (good, price) in enumerate([*cents.items(), ("TOTAL", total)]):
        y = size * (5 + 2 * n) + (size if good == "TOTAL" else 0)
        if good == "TOTAL":
            draw.line((size, y - size * 0.4, width - size, y - size * 0.4), fill=INK, width=2)
        draw_text(draw, (size, y), good, size)
        draw_text(draw, (width - size, y), format_dollars(price), size, anchor="ra")
    queried_item = rng.choice(goods)
    most_expensive_item = max(cents, key=cents.__getitem__)
    items_text = join_with_and([f"{good} for {format_dollars(price)}" for good, price in cents.items()])
    qa_pairs = (
        DrawnQAPair(
            "What is the total on the receipt?",
            format_dollars(total),
            f"The last line reads TOTAL {format_dollars(total)}.",
        ),
        DrawnQAPair("Which shop issued the receipt?", shop, f'The heading of the receipt is "{shop}".'),
        DrawnQAPair(
            f"How much did the {queried_item} cost?",
            format_dollars(cents[queried_item]),
            f"The line {queried_item} reads {format_dollars(cents[queried_item])}.",
        ),
        DrawnQAPair(
            "What is the number of the receipt?", str(number), f'Below the shop it says "Receipt no. {number}".'
        ),
        DrawnQAPair("How many different things were bought?", str(len(goods)), f"The lines list {items_text}."),
        DrawnQAPair("Which item was the most expensive?", most_expensive_item, f"The lines list {items_text}."),
    )
    return Drawing(
        image, qa_pairs, f"A receipt of {shop}: {items_text}, in total {format_dollars(total)}.", needs_colour=False
    )


def draw_notice(rng: Random) -> Drawing:
    """Draw a notice."""
    event, day, street, host = rng.choice(EVENTS), rng.choice(DAYS), rng.choice(STREETS), rng.choice(PERSON_NAMES)
    hour, house, fee = sample_int(rng, 4, 9), sample_int(rng, 1, 90), sample_int(rng, 2, 12)
    size = sample_int(rng, 16, 24, 2)
    lines = [f"Every {day} at {hour} pm", f"{house} {street}", f"Entry: {fee} dollars", f"Ask for {host}"]
    width = max(measure_text_width(line, size) for line in lines) + 6 * size
    width = max(width, measure_text_width(event, size + 12) + 4 * size)
    image, draw = create_canvas((width, size * (6 + 2 * len(lines))), rng.choice(PAPERS))
    draw.rectangle((6, 6, width - 7, image.height - 7), outline=INK, width=3)
    draw_text(draw, (width / 2, size * 1.5), event, size + 12, anchor="ma")
    for n, line in enumerate(lines):
        draw_text(draw, (width / 2, size * (5 + 2 * n)), line, size, anchor="ma")
    qa_pairs = (
        DrawnQAPair("On which day does it take place?", day, f'The notice says "{lines[0]}".'),
        DrawnQAPair("What is the event called?", event, f'The heading in large letters is "{event}".'),
        DrawnQAPair("What is the address?", lines[1], f'The second line below the heading gives "{lines[1]}".'),
        DrawnQAPair("How many dollars is the entry?", str(fee), f'The notice says "{lines[2]}".'),
        DrawnQAPair("Whom should one ask for?", host, f'The last line says "{lines[3]}".'),
        DrawnQAPair("At what time does it begin?", f"{hour} pm", f'The notice says "{lines[0]}".'),
    )
    caption = f'A framed notice reads "{event}. {". ".join(lines)}."'
    return Drawing(image, qa_pairs, caption, needs_colour=False)


def draw_form(rng: Random) -> Drawing:
    """Draw a filled-in form."""
    name, street = rng.choice(PERSON_NAMES), rng.choice(STREETS)
    values = {
        "Name": f"{name} {rng.choice(('Berg', 'Costa', 'Novak', 'Okoro', 'Sato', 'Weiss'))}",
        "Street": f"{sample_int(rng, 1, 90)} {street}",
        "Member since": str(sample_int(rng, 1998, 2023)),
        "Card number": f"{sample_int(rng, 100, 999)}-{sample_int(rng, 10, 99)}",
    }
    size = sample_int(rng, 15, 21, 2)
    image, draw = create_canvas((size * 24, size * (5 + 3 * len(values))), rng.choice(PAPERS))
    title = rng.choice(("Library card", "Boat club", "Allotment register", "Swimming pass"))
    draw_text(draw, (size, size), title, size + 8)
    for n, (field, value) in enumerate(values.items()):
        y = size * (5 + 3 * n)
        draw_text(draw, (size, y), f"{field}:", size, (90, 90, 96))
        draw_text(draw, (size * 9, y), value, size)
        draw.line((size * 9, y + size * 1.5, size * 23, y + size * 1.5), fill=(150, 150, 150))
    qa_pairs = tuple(
        DrawnQAPair(
            f'What is written in the field "{field}"?', value, f'The line "{field}:" is filled in with {value}.'
        )
        for field, value in values.items()
    )
    title_qa_pair = DrawnQAPair("What is the title of the form?", title, f'Above the fields it says "{title}".')
    fields_text = join_with_and([f"{field}: {value}" for field, value in values.items()])
    return Drawing(
        image, (*qa_pairs, title_qa_pair), f'A form titled "{title}" with {fields_text}.', needs_colour=False
    )


def draw_sign(rng: Random) -> Drawing:
    """Draw a street sign or a warning: little text in large letters on colour."""
    sign_text = rng.choice((*WARNINGS, *(f"{sample_int(rng, 1, 90)} {street}" for street in STREETS)))
    boards: tuple[tuple[str, RGB, RGB], ...] = (
        ("blue", (30, 80, 200), (255, 255, 255)),
        ("yellow", (250, 215, 40), (20, 20, 20)),
        ("green", (30, 120, 60), (255, 255, 255)),
        ("white", (250, 250, 250), (20, 20, 20)),
    )
    name, background, ink = rng.choice(boards)
    size = sample_int(rng, 24, 44, 4)
    width, height = measure_text_width(sign_text, size) + 4 * size, size * 5
    image, draw = create_canvas((width, height), (140, 150, 160))
    draw.rectangle(
        (size * 0.6, size * 0.8, width - size * 0.6, height - size * 0.8), fill=background, outline=ink, width=3
    )
    draw_text(draw, (width / 2, height / 2), sign_text, size, ink, anchor="mm")
    count = len(sign_text.split())
    qa_pairs = (
        DrawnQAPair("What does the sign say?", sign_text, f'The letters on the {name} board read "{sign_text}".'),
        DrawnQAPair("What colour is the board of the sign?", name, f"The board behind the letters is {name}."),
        DrawnQAPair(
            "How many words or numbers are on the sign?", str(count), f"Separated by spaces it reads {sign_text}."
        ),
        DrawnQAPair("What is the last word on the sign?", sign_text.split()[-1], f'The sign reads "{sign_text}".'),
    )
    return Drawing(image, qa_pairs, f'A {name} sign that reads "{sign_text}".')


def draw_banner(rng: Random) -> Drawing:
    """Draw one long line of text in an image far wider than 7:1."""
    shop, day, street = rng.choice(SHOPS), rng.choice(DAYS), rng.choice(STREETS)
    banner_text = f"{shop} opens its doors on {day} at {street}"
    size = sample_int(rng, 26, 38, 4)
    image, draw = create_canvas((measure_text_width(banner_text, size) + 2 * size, int(size * 2.2)), rng.choice(PAPERS))
    draw_text(draw, (size, size * 1.1), banner_text, size, anchor="lm")
    rationale = f'The banner reads "{banner_text}".'
    qa_pairs = (
        DrawnQAPair("Which shop is named on the banner?", shop, rationale),
        DrawnQAPair("On which day does it open?", day, rationale),
        DrawnQAPair("Where does it open?", street, rationale),
        DrawnQAPair("What does the banner say?", banner_text, "The whole text stands on one line."),
    )
    return Drawing(image, qa_pairs, f'A long banner that reads "{banner_text}".', needs_colour=False)
