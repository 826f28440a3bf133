"""Little text that fills its picture: single words, rows of digits, handwritten lines and sums, formulas.

Handwriting is the font inside Pillow with every letter set a little askew. Pages of text are in `documents`.
"""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import (
    COLOURS,
    INK,
    PAPERS,
    RGB,
    Drawing,
    Pair,
    between,
    canvas,
    font,
    text,
    width_of,
)

WORDS = (
    "HARBOUR",
    "bakery",
    "Museum",
    "OPEN",
    "garden",
    "Theatre",
    "STATION",
    "market",
    "Library",
    "COFFEE",
    "bicycle",
    "Bridge",
)
SENTENCES = (
    "The boats came home before the rain",
    "She put the letters in a blue box",
    "Nobody had wound the clock since May",
    "We walked along the river to the mill",
    "He kept his tools behind the door",
    "The baker opens his shop at six",
)


def word(rng: Random) -> Drawing:
    """One printed word on a coloured board, cropped as scene text data sets crop it."""
    shown = rng.choice(WORDS)
    board = rng.choice([name for name in COLOURS if name not in ("yellow", "pink")])
    size = between(rng, 30, 56, 2)
    picture, draw = canvas((width_of(shown, size) + size, int(size * 1.8)), COLOURS[board])
    text(draw, (picture.width / 2, picture.height / 2), shown, size, (255, 255, 255), anchor="mm")
    read = f"The letters on the {board} board read {shown}."
    pairs = (
        Pair("Which word is written in the picture?", shown, read),
        Pair("How many letters does the word have?", str(len(shown)), f"{read} Counted, that is {len(shown)} letters."),
        Pair("What is the first letter of the word?", shown[0], read),
    )
    return Drawing(picture, pairs, f'A {board} board with the word "{shown}".', needs_colour=False)


def digits(rng: Random) -> Drawing:
    """An amount written by hand in one row of digits."""
    shown = str(between(rng, 100, 9_999_999))
    picture = hand(rng, shown, between(rng, 28, 44, 4))
    pairs = (
        Pair("Which number is written in the picture?", shown, f"Read from left to right, the digits are {shown}."),
        Pair("How many digits does the number have?", str(len(shown)), f"The digits are {', '.join(shown)}."),
        Pair("What is the last digit?", shown[-1], f"Read from left to right, the digits are {shown}."),
    )
    return Drawing(picture, pairs, f"The number {shown}, written by hand.", needs_colour=False)


def line(rng: Random) -> Drawing:
    """One sentence written by hand."""
    shown = rng.choice(SENTENCES)
    words = shown.split()
    pairs = (
        Pair("What is written in the picture?", shown, f'The line reads "{shown}".'),
        Pair("What is the last word of the line?", words[-1], f'The line reads "{shown}".'),
        Pair("How many words are in the line?", str(len(words)), f'The line reads "{shown}".'),
    )
    picture = hand(rng, shown, between(rng, 20, 30, 2))
    return Drawing(picture, pairs, f'A handwritten line that reads "{shown}".', needs_colour=False)


def arithmetic(rng: Random) -> Drawing:
    """A sum without its result, written by hand."""
    a, b = between(rng, 3, 99), between(rng, 3, 99)
    sign, result = rng.choice((("+", a + b), ("-", a - b), ("x", a * b)))
    shown = f"{a} {sign} {b} ="
    pairs = (
        Pair("What is the result of the sum in the picture?", str(result), f"The sum reads {shown} {result}."),
        Pair("Which sum is written in the picture?", f"{a} {sign} {b}", f'The line reads "{shown}".'),
    )
    picture = hand(rng, shown, between(rng, 28, 44, 4))
    return Drawing(picture, pairs, f'A handwritten sum that reads "{shown}".', needs_colour=False)


def formula(rng: Random) -> Drawing:
    """A fraction, a square root or a polynomial; the answer is its LaTeX."""
    a, b, c, d = (between(rng, 2, 19) for _ in range(4))
    size = between(rng, 26, 40, 2)
    kind = rng.choice(("fraction", "root", "polynomial"))
    if kind == "fraction":
        latex = rf"\frac{{{a}}}{{{b}}} + \frac{{{c}}}{{{d}}}"
        picture = _fractions((str(a), str(b)), (str(c), str(d)), size)
        told = f"The picture shows the fractions {a} over {b} and {c} over {d} with a plus sign between them."
    elif kind == "root":
        latex = rf"\sqrt{{{a} + {b}}}"
        picture = _root(f"{a} + {b}", size)
        told = f"The picture shows the square root of {a} + {b}."
    else:
        latex = rf"x^{{2}} + {a}x - {b}"
        picture = _raised(("x", "2", f" + {a}x - {b}"), size)
        told = f"The picture shows x squared plus {a} times x minus {b}."
    pairs = (
        Pair("Write the formula in the picture in LaTeX.", latex, told),
        Pair("Is it a fraction, a root or a polynomial?", "a fraction" if kind == "fraction" else f"a {kind}", told),
    )
    return Drawing(picture, pairs, told, needs_colour=False)


def hand(rng: Random, words: str, size: int) -> Image.Image:
    """`words` on one line, every letter turned by a few degrees and moved up or down by a few pixels."""
    ink: RGB = rng.choice((INK, (28, 44, 120)))
    room = int(size * 1.6)
    picture, _ = canvas((sum(width_of(letter, size) for letter in words) + size, room + size // 2), rng.choice(PAPERS))
    x = size // 2
    for letter in words:
        wide = width_of(letter, size)
        cell = Image.new("L", (wide + 8, room), 0)
        ImageDraw.Draw(cell).text((4, room / 2), letter, fill=255, font=font(size), anchor="lm")
        turned = cell.rotate(rng.uniform(-9, 9), Image.Resampling.BILINEAR)
        picture.paste(ink, (x - 4, size // 4 + rng.randint(-size // 10, size // 10)), turned)
        x += wide
    return picture


def _fractions(left: tuple[str, str], right: tuple[str, str], size: int) -> Image.Image:
    wide = [max(width_of(part, size) for part in fraction) + size // 2 for fraction in (left, right)]
    picture, draw = canvas((sum(wide) + 4 * size, int(size * 3.4)), (255, 255, 255))
    middle, x = picture.height / 2, size
    for number, (fraction, width) in enumerate(zip((left, right), wide, strict=True)):
        draw.line((x, middle, x + width, middle), fill=INK, width=2)
        text(draw, (x + width / 2, middle - size * 0.75), fraction[0], size, anchor="mm")
        text(draw, (x + width / 2, middle + size * 0.75), fraction[1], size, anchor="mm")
        if number == 0:
            text(draw, (x + width + size, middle), "+", size, anchor="mm")
        x += width + 2 * size
    return picture


def _root(inside: str, size: int) -> Image.Image:
    wide = width_of(inside, size)
    picture, draw = canvas((wide + 4 * size, int(size * 2.4)), (255, 255, 255))
    top, foot, x = size * 0.5, size * 1.9, 2 * size
    draw.line(
        [(size * 0.8, size * 1.3), (size * 1.1, size * 1.2), (size * 1.5, foot), (x, top), (x + wide + size, top)],
        fill=INK,
        width=2,
    )
    text(draw, (x + size * 0.4, size * 1.25), inside, size, anchor="lm")
    return picture


def _raised(parts: tuple[str, str, str], size: int) -> Image.Image:
    base, power, rest = parts
    small = size * 2 // 3
    picture, draw = canvas((sum(width_of(part, size) for part in parts) + 2 * size, int(size * 2.4)), (255, 255, 255))
    text(draw, (size, size * 1.3), base, size, anchor="lm")
    x = size + width_of(base, size)
    text(draw, (x, size * 0.85), power, small, anchor="lm")
    text(draw, (x + width_of(power, small), size * 1.3), rest, size, anchor="lm")
    return picture
