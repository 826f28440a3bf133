"""Tables drawn as images, with look-ups, comparisons and sums over their cells; also TabMWP-like word problems."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair, join_with_and, sample_int
from mvl_assets.media.drawing import INK, create_canvas, draw_text, measure_text_width

PERSON_NAMES = ("Ada", "Bruno", "Chiara", "Dev", "Elif", "Femi", "Greta", "Hana", "Ivan", "Juma", "Kai", "Lena")
SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Team results", "Player", ("Goals", "Assists", "Matches")),
    ("Garden club harvest", "Member", ("Carrots", "Beets", "Leeks")),
    ("Reading contest", "Reader", ("Novels", "Poems", "Essays")),
    ("Tool rental", "Customer", ("Ladders", "Drills", "Saws")),
)
GOODS = (
    "notebook",
    "pencil case",
    "ruler",
    "lamp",
    "mug",
    "kite",
    "puzzle",
    "scarf",
    "basket",
    "bell",
    "globe",
    "vase",
)


@dataclass(frozen=True, slots=True)
class TableData:
    """Cells as text; the first row is the header (None: a table without one)."""

    title: str | None
    header: tuple[str, ...] | None
    rows: tuple[tuple[str, ...], ...]

    @property
    def as_text(self) -> str:
        """Cells joined with ` | `, one row per line, as TabMWP writes them."""
        return "\n".join(" | ".join(row) for row in ([self.header] if self.header else []) + list(self.rows))


def render_table(table: TableData, size: int = 16, has_stripes: bool = False) -> Image.Image:
    """Draw a ruled table, the title above it; the image is as large as its text needs at `size` pixels."""
    table_rows = ([table.header] if table.header else []) + list(table.rows)
    widths = [max(measure_text_width(row[n], size) for row in table_rows) + 2 * size for n in range(len(table_rows[0]))]
    row_height = size + 14
    top = row_height + 6 if table.title else 4
    image_width = max(sum(widths) + 8, measure_text_width(table.title or "", size) + 12)
    image, draw = create_canvas((image_width, top + row_height * len(table_rows) + 5), (255, 255, 255))
    if table.title:
        draw_text(draw, (image_width / 2, 8), table.title, size, anchor="ma")
    for n, row in enumerate(table_rows):
        y = top + n * row_height
        if (table.header and n == 0) or (has_stripes and n % 2):
            draw.rectangle((4, y, 4 + sum(widths), y + row_height), fill=(226, 234, 245))
        x = 4
        for cell, width in zip(row, widths, strict=True):
            draw.rectangle((x, y, x + width, y + row_height), outline=INK)
            draw_text(draw, (x + width / 2, y + row_height / 2), cell, size, anchor="mm")
            x += width
    return image


def draw_table(rng: Random) -> Drawing:
    """Draw a table of people by columns of whole numbers."""
    title, row_label, columns = rng.choice(SUBJECTS)
    people = rng.sample(PERSON_NAMES, sample_int(rng, 3, 7))
    values = {column: rng.sample(range(2, 40), len(people)) for column in columns}
    rows = tuple((name, *(str(values[column][n]) for column in columns)) for n, name in enumerate(people))
    table_data = TableData(title, (row_label, *columns), rows)
    image = render_table(table_data, sample_int(rng, 14, 22, 2), rng.random() < 0.5)
    column = rng.choice(columns)
    cells = dict(zip(people, values[column], strict=True))
    highest_person, lowest_person = max(cells, key=cells.__getitem__), min(cells, key=cells.__getitem__)
    first_person, second_person = rng.sample(people, 2)
    other_column = rng.choice([name for name in columns if name != column])
    cells_text = join_with_and([f"{name} {value}" for name, value in cells.items()])
    rationale = f"The column {column} reads {cells_text}."
    total = sum(cells.values())
    qa_pairs = [
        DrawnQAPair(
            f"What number does {first_person} have under {column}?",
            str(cells[first_person]),
            f"In the row of {first_person}, the cell of the column {column} holds {cells[first_person]}.",
        ),
        DrawnQAPair(
            f"Who has the most under {column}?",
            highest_person,
            f"{rationale} The largest number is {cells[highest_person]}.",
        ),
        DrawnQAPair(
            f"Who has the least under {column}?",
            lowest_person,
            f"{rationale} The smallest number is {cells[lowest_person]}.",
        ),
        DrawnQAPair(
            f"What is the total of the column {column}?", str(total), f"{rationale} Added up, that is {total}."
        ),
        DrawnQAPair(
            f"How many more {column.lower()} does the table give for {highest_person} than for {lowest_person}?",
            str(cells[highest_person] - cells[lowest_person]),
            f"{highest_person} has {cells[highest_person]} and {lowest_person} has {cells[lowest_person]}. "
            f"{cells[highest_person]} - {cells[lowest_person]} = {cells[highest_person] - cells[lowest_person]}.",
        ),
        DrawnQAPair(
            f"How much do {column.lower()} and {other_column.lower()} of {second_person} add up to?",
            str(cells[second_person] + values[other_column][people.index(second_person)]),
            f"{second_person} has {cells[second_person]} under {column} "
            f"and {values[other_column][people.index(second_person)]} under {other_column}.",
        ),
        DrawnQAPair("How many people are listed?", str(len(people)), f"The rows are those of {join_with_and(people)}."),
    ]
    rng.shuffle(qa_pairs)
    columns_text = join_with_and([row_label, *columns])
    caption = f'A table titled "{title}" with {len(people)} rows and the columns {columns_text}. {rationale}'
    return Drawing(image, tuple(qa_pairs), caption, needs_colour=False)


@dataclass(frozen=True, slots=True)
class WordProblem:
    """One problem in the manner of TabMWP; `choices` and `unit` are None where the problem has none."""

    table: TableData
    question: str
    answer: str
    unit: str | None
    choices: tuple[str, ...] | None
    solution: str
    answer_kind: str


def build_word_problem(rng: Random) -> WordProblem:
    """Return a problem with prices to add up, a price to choose, or counts to compare."""
    kind = rng.choice(("cost", "afford", "mean", "dearest"))
    person = rng.choice(PERSON_NAMES)
    if kind == "mean":
        return _build_mean_problem(rng, person)
    goods = rng.sample(GOODS, sample_int(rng, 4, 6))
    cents = dict(zip(goods, rng.sample(range(105, 995, 5), len(goods)), strict=True))
    prices = TableData(None, None, tuple((good, format_dollars(value)) for good, value in cents.items()))
    first_item, second_item = rng.sample(goods, 2)
    if kind == "cost":
        total = cents[first_item] + cents[second_item]
        solution = (
            f"Find the price of each thing and add.\nThe {first_item} costs {format_dollars(cents[first_item])} "
            f"and the {second_item} costs {format_dollars(cents[second_item])}.\n"
            f"{format_dollars(cents[first_item])} + {format_dollars(cents[second_item])} = {format_dollars(total)}\n"
            f"{person} needs {format_dollars(total)}."
        )
        question = f"How much money does {person} need to buy a {first_item} and a {second_item}?"
        return WordProblem(prices, question, format_dollars(total)[1:], "$", None, solution, "decimal_number")
    if kind == "afford":
        total = cents[first_item] + cents[second_item]
        budget = total + rng.choice((-65, -30, -5, 0, 15, 40, 90))
        is_enough = budget >= total
        solution = (
            f"Add the price of a {first_item} and the price of a {second_item}:\n"
            f"{format_dollars(cents[first_item])} + {format_dollars(cents[second_item])} = {format_dollars(total)}\n"
            f"{format_dollars(total)} is {'not more' if is_enough else 'more'} than {format_dollars(budget)}. "
            f"{person} {'does' if is_enough else 'does not'} have enough money."
        )
        question = (
            f"{person} has {format_dollars(budget)}. "
            f"Does {person} have enough to buy a {first_item} and a {second_item}?"
        )
        answer = "yes" if is_enough else "no"
        return WordProblem(prices, question, answer, None, ("yes", "no"), solution, "boolean_text")
    most_expensive_item = max(cents, key=cents.__getitem__)
    solution = (
        f"Compare the prices. The highest is {format_dollars(cents[most_expensive_item])}. "
        f"It belongs to the {most_expensive_item}."
    )
    question = f"{person} compares the prices in the shop. Which thing costs the most?"
    return WordProblem(prices, question, most_expensive_item, None, tuple(goods), solution, "extractive_text")


def _build_mean_problem(rng: Random, person: str) -> WordProblem:
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    mean = sample_int(rng, 6, 20)
    shifts = rng.sample(range(1, 5), 2)
    counts = [mean + shifts[0], mean - shifts[0], mean + shifts[1], mean - shifts[1], mean]
    rng.shuffle(counts)
    rows = tuple((day, str(count)) for day, count in zip(days, counts, strict=True))
    table_data = TableData(f"Letters delivered by {person}", ("Day", "Letters"), rows)
    total = sum(counts)
    solution = (
        f"Add the numbers:\n{' + '.join(map(str, counts))} = {total}\nDivide by the number of days:\n"
        f"{total} / {len(days)} = {mean}\nThe mean is {mean}."
    )
    question = f"{person} noted the letters delivered each day. What is the mean of the numbers?"
    return WordProblem(table_data, question, str(mean), "letters", None, solution, "integer_number")


def format_dollars(cents: int) -> str:
    """Return cents as dollars, such as `$1.05`."""
    return f"${cents // 100}.{cents % 100:02d}"
