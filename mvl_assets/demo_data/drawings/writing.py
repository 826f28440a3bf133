"""Little text that fills its image: single words, rows of digits, handwritten lines and sums, formulas.

Handwriting is the font inside Pillow with every letter set a little askew. Pages of text are in `documents`.
"""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, sample_int
from mvl_assets.media.drawing import COLOURS, INK, PAPERS, RGB, create_canvas, draw_text, load_font, measure_text_width

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


def draw_word(rng: Random) -> Drawing:
    """Draw one printed word on a coloured board, cropped as scene text data sets crop it."""
    printed_word = rng.choice(WORDS)
    board_colour = rng.choice([name for name in COLOURS if name not in ("yellow", "pink")])
    size = sample_int(rng, 30, 56, 2)
    image, draw = create_canvas((measure_text_width(printed_word, size) + size, int(size * 1.8)), COLOURS[board_colour])
    draw_text(draw, (image.width / 2, image.height / 2), printed_word, size, (255, 255, 255), anchor="mm")
    rationale = f"The letters on the {board_colour} board read {printed_word}."
    qa_pairs = (
        DrawnQAPair("Which word is written in the picture?", printed_word, rationale),
        DrawnQAPair(
            "How many letters does the word have?",
            str(len(printed_word)),
            f"{rationale} Counted, that is {len(printed_word)} letters.",
        ),
        DrawnQAPair("What is the first letter of the word?", printed_word[0], rationale),
    )
    return Drawing(image, qa_pairs, f'A {board_colour} board with the word "{printed_word}".', needs_colour=False)


def draw_digits(rng: Random) -> Drawing:
    """Draw an amount written by hand in one row of digits."""
    number_text = str(sample_int(rng, 100, 9_999_999))
    image = render_handwriting(rng, number_text, sample_int(rng, 28, 44, 4))
    qa_pairs = (
        DrawnQAPair(
            "Which number is written in the picture?",
            number_text,
            f"Read from left to right, the digits are {number_text}.",
        ),
        DrawnQAPair(
            "How many digits does the number have?", str(len(number_text)), f"The digits are {', '.join(number_text)}."
        ),
        DrawnQAPair(
            "What is the last digit?", number_text[-1], f"Read from left to right, the digits are {number_text}."
        ),
    )
    return Drawing(image, qa_pairs, f"The number {number_text}, written by hand.", needs_colour=False)


def draw_handwritten_line(rng: Random) -> Drawing:
    """Draw one sentence written by hand."""
    sentence = rng.choice(SENTENCES)
    words = sentence.split()
    qa_pairs = (
        DrawnQAPair("What is written in the picture?", sentence, f'The line reads "{sentence}".'),
        DrawnQAPair("What is the last word of the line?", words[-1], f'The line reads "{sentence}".'),
        DrawnQAPair("How many words are in the line?", str(len(words)), f'The line reads "{sentence}".'),
    )
    image = render_handwriting(rng, sentence, sample_int(rng, 20, 30, 2))
    return Drawing(image, qa_pairs, f'A handwritten line that reads "{sentence}".', needs_colour=False)


def draw_arithmetic(rng: Random) -> Drawing:
    """Draw a sum without its result, written by hand."""
    a, b = sample_int(rng, 3, 99), sample_int(rng, 3, 99)
    sign, result = rng.choice((("+", a + b), ("-", a - b), ("x", a * b)))
    expression = f"{a} {sign} {b} ="
    qa_pairs = (
        DrawnQAPair(
            "What is the result of the sum in the picture?", str(result), f"The sum reads {expression} {result}."
        ),
        DrawnQAPair("Which sum is written in the picture?", f"{a} {sign} {b}", f'The line reads "{expression}".'),
    )
    image = render_handwriting(rng, expression, sample_int(rng, 28, 44, 4))
    return Drawing(image, qa_pairs, f'A handwritten sum that reads "{expression}".', needs_colour=False)


def draw_formula(rng: Random) -> Drawing:
    """Draw a fraction, a square root or a polynomial; the answer is its LaTeX."""
    a, b, c, d = (sample_int(rng, 2, 19) for _ in range(4))
    size = sample_int(rng, 26, 40, 2)
    kind = rng.choice(("fraction", "root", "polynomial"))
    if kind == "fraction":
        latex = rf"\frac{{{a}}}{{{b}}} + \frac{{{c}}}{{{d}}}"
        image = _render_fractions((str(a), str(b)), (str(c), str(d)), size)
        caption = f"The picture shows the fractions {a} over {b} and {c} over {d} with a plus sign between them."
    elif kind == "root":
        latex = rf"\sqrt{{{a} + {b}}}"
        image = _render_root(f"{a} + {b}", size)
        caption = f"The picture shows the square root of {a} + {b}."
    else:
        latex = rf"x^{{2}} + {a}x - {b}"
        image = _render_power(("x", "2", f" + {a}x - {b}"), size)
        caption = f"The picture shows x squared plus {a} times x minus {b}."
    qa_pairs = (
        DrawnQAPair("Write the formula in the picture in LaTeX.", latex, caption),
        DrawnQAPair(
            "Is it a fraction, a root or a polynomial?", "a fraction" if kind == "fraction" else f"a {kind}", caption
        ),
    )
    return Drawing(image, qa_pairs, caption, needs_colour=False)


def render_handwriting(rng: Random, text: str, size: int) -> Image.Image:
    """Draw `text` on one line, every letter turned by a few degrees and moved up or down by a few pixels."""
    ink: RGB = rng.choice((INK, (28, 44, 120)))
    cell_height = int(size * 1.6)
    image, _ = create_canvas(
        (sum(measure_text_width(letter, size) for letter in text) + size, cell_height + size // 2), rng.choice(PAPERS)
    )
    x = size // 2
    for letter in text:
        letter_width = measure_text_width(letter, size)
        cell = Image.new("L", (letter_width + 8, cell_height), 0)
        ImageDraw.Draw(cell).text((4, cell_height / 2), letter, fill=255, font=load_font(size), anchor="lm")
        rotated_letter = cell.rotate(rng.uniform(-9, 9), Image.Resampling.BILINEAR)
        image.paste(ink, (x - 4, size // 4 + rng.randint(-size // 10, size // 10)), rotated_letter)
        x += letter_width
    return image


def _render_fractions(left: tuple[str, str], right: tuple[str, str], size: int) -> Image.Image:
    widths = [max(measure_text_width(part, size) for part in fraction) + size // 2 for fraction in (left, right)]
    image, draw = create_canvas((sum(widths) + 4 * size, int(size * 3.4)), (255, 255, 255))
    middle, x = image.height / 2, size
    for number, (fraction, width) in enumerate(zip((left, right), widths, strict=True)):
        draw.line((x, middle, x + width, middle), fill=INK, width=2)
        draw_text(draw, (x + width / 2, middle - size * 0.75), fraction[0], size, anchor="mm")
        draw_text(draw, (x + width / 2, middle + size * 0.75), fraction[1], size, anchor="mm")
        if number == 0:
            draw_text(draw, (x + width + size, middle), "+", size, anchor="mm")
        x += width + 2 * size
    return image


def _render_root(radicand: str, size: int) -> Image.Image:
    text_width = measure_text_width(radicand, size)
    image, draw = create_canvas((text_width + 4 * size, int(size * 2.4)), (255, 255, 255))
    top, bottom, x = size * 0.5, size * 1.9, 2 * size
    draw.line(
        [
            (size * 0.8, size * 1.3),
            (size * 1.1, size * 1.2),
            (size * 1.5, bottom),
            (x, top),
            (x + text_width + size, top),
        ],
        fill=INK,
        width=2,
    )
    draw_text(draw, (x + size * 0.4, size * 1.25), radicand, size, anchor="lm")
    return image


def _render_power(parts: tuple[str, str, str], size: int) -> Image.Image:
    base, exponent, remaining_text = parts
    exponent_size = size * 2 // 3
    image, draw = create_canvas(
        (sum(measure_text_width(part, size) for part in parts) + 2 * size, int(size * 2.4)), (255, 255, 255)
    )
    draw_text(draw, (size, size * 1.3), base, size, anchor="lm")
    x = size + measure_text_width(base, size)
    draw_text(draw, (x, size * 0.85), exponent, exponent_size, anchor="lm")
    draw_text(draw, (x + measure_text_width(exponent, exponent_size), size * 1.3), remaining_text, size, anchor="lm")
    return image
