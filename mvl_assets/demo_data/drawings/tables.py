"""Tables drawn as pictures, with look-ups, comparisons and sums over their cells; also TabMWP-like word problems."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import INK, Drawing, Pair, between, canvas, listing, text, width_of

NAMES = ("Ada", "Bruno", "Chiara", "Dev", "Elif", "Femi", "Greta", "Hana", "Ivan", "Juma", "Kai", "Lena")
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
class Table:
    """Cells as text; the first row is the header (None: a table without one)."""

    title: str | None
    header: tuple[str, ...] | None
    rows: tuple[tuple[str, ...], ...]

    @property
    def as_text(self) -> str:
        """Cells joined with ` | `, one row per line, as TabMWP writes them."""
        return "\n".join(" | ".join(row) for row in ([self.header] if self.header else []) + list(self.rows))


def paint(table: Table, size: int = 16, stripes: bool = False) -> Image.Image:
    """A ruled table, the title above it; the picture is as large as its text needs at `size` pixels."""
    lines = ([table.header] if table.header else []) + list(table.rows)
    widths = [max(width_of(row[n], size) for row in lines) + 2 * size for n in range(len(lines[0]))]
    high = size + 14
    top = high + 6 if table.title else 4
    wide = max(sum(widths) + 8, width_of(table.title or "", size) + 12)
    picture, draw = canvas((wide, top + high * len(lines) + 5), (255, 255, 255))
    if table.title:
        text(draw, (wide / 2, 8), table.title, size, anchor="ma")
    for n, row in enumerate(lines):
        y = top + n * high
        if (table.header and n == 0) or (stripes and n % 2):
            draw.rectangle((4, y, 4 + sum(widths), y + high), fill=(226, 234, 245))
        x = 4
        for cell, width in zip(row, widths, strict=True):
            draw.rectangle((x, y, x + width, y + high), outline=INK)
            text(draw, (x + width / 2, y + high / 2), cell, size, anchor="mm")
            x += width
    return picture


def table(rng: Random) -> Drawing:
    """People by columns of whole numbers."""
    title, who, columns = rng.choice(SUBJECTS)
    people = rng.sample(NAMES, between(rng, 3, 7))
    values = {column: rng.sample(range(2, 40), len(people)) for column in columns}
    rows = tuple((name, *(str(values[column][n]) for column in columns)) for n, name in enumerate(people))
    drawn = Table(title, (who, *columns), rows)
    picture = paint(drawn, between(rng, 14, 22, 2), rng.random() < 0.5)
    column = rng.choice(columns)
    cells = dict(zip(people, values[column], strict=True))
    best, least = max(cells, key=cells.__getitem__), min(cells, key=cells.__getitem__)
    one, two = rng.sample(people, 2)
    other = rng.choice([name for name in columns if name != column])
    listed = listing([f"{name} {value}" for name, value in cells.items()])
    read = f"The column {column} reads {listed}."
    total = sum(cells.values())
    pairs = [
        Pair(
            f"What number does {one} have under {column}?",
            str(cells[one]),
            f"In the row of {one}, the cell of the column {column} holds {cells[one]}.",
        ),
        Pair(f"Who has the most under {column}?", best, f"{read} The largest number is {cells[best]}."),
        Pair(f"Who has the least under {column}?", least, f"{read} The smallest number is {cells[least]}."),
        Pair(f"What is the total of the column {column}?", str(total), f"{read} Added up, that is {total}."),
        Pair(
            f"How many more {column.lower()} does the table give for {best} than for {least}?",
            str(cells[best] - cells[least]),
            f"{best} has {cells[best]} and {least} has {cells[least]}. "
            f"{cells[best]} - {cells[least]} = {cells[best] - cells[least]}.",
        ),
        Pair(
            f"How much do {column.lower()} and {other.lower()} of {two} add up to?",
            str(cells[two] + values[other][people.index(two)]),
            f"{two} has {cells[two]} under {column} and {values[other][people.index(two)]} under {other}.",
        ),
        Pair("How many people are listed?", str(len(people)), f"The rows are those of {listing(people)}."),
    ]
    rng.shuffle(pairs)
    caption = f'A table titled "{title}" with {len(people)} rows and the columns {listing([who, *columns])}. {read}'
    return Drawing(picture, tuple(pairs), caption, needs_colour=False)


@dataclass(frozen=True, slots=True)
class WordProblem:
    """One problem in the manner of TabMWP; `choices` and `unit` are None where the problem has none."""

    table: Table
    question: str
    answer: str
    unit: str | None
    choices: tuple[str, ...] | None
    solution: str
    answer_kind: str


def word_problem(rng: Random) -> WordProblem:
    """Prices to add up, a price to choose, or counts to compare."""
    kind = rng.choice(("cost", "afford", "mean", "dearest"))
    person = rng.choice(NAMES)
    if kind == "mean":
        return _mean(rng, person)
    goods = rng.sample(GOODS, between(rng, 4, 6))
    cents = dict(zip(goods, rng.sample(range(105, 995, 5), len(goods)), strict=True))
    prices = Table(None, None, tuple((good, money(value)) for good, value in cents.items()))
    one, two = rng.sample(goods, 2)
    if kind == "cost":
        total = cents[one] + cents[two]
        solution = (
            f"Find the price of each thing and add.\nThe {one} costs {money(cents[one])} and the {two} costs "
            f"{money(cents[two])}.\n{money(cents[one])} + {money(cents[two])} = {money(total)}\n"
            f"{person} needs {money(total)}."
        )
        question = f"How much money does {person} need to buy a {one} and a {two}?"
        return WordProblem(prices, question, money(total)[1:], "$", None, solution, "decimal_number")
    if kind == "afford":
        total = cents[one] + cents[two]
        purse = total + rng.choice((-65, -30, -5, 0, 15, 40, 90))
        enough = purse >= total
        solution = (
            f"Add the price of a {one} and the price of a {two}:\n{money(cents[one])} + {money(cents[two])} = "
            f"{money(total)}\n{money(total)} is {'not more' if enough else 'more'} than {money(purse)}. "
            f"{person} {'does' if enough else 'does not'} have enough money."
        )
        question = f"{person} has {money(purse)}. Does {person} have enough to buy a {one} and a {two}?"
        answer = "yes" if enough else "no"
        return WordProblem(prices, question, answer, None, ("yes", "no"), solution, "boolean_text")
    dearest = max(cents, key=cents.__getitem__)
    solution = f"Compare the prices. The highest is {money(cents[dearest])}. It belongs to the {dearest}."
    question = f"{person} compares the prices in the shop. Which thing costs the most?"
    return WordProblem(prices, question, dearest, None, tuple(goods), solution, "extractive_text")


def _mean(rng: Random, person: str) -> WordProblem:
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    mean = between(rng, 6, 20)
    shifts = rng.sample(range(1, 5), 2)
    counts = [mean + shifts[0], mean - shifts[0], mean + shifts[1], mean - shifts[1], mean]
    rng.shuffle(counts)
    rows = tuple((day, str(count)) for day, count in zip(days, counts, strict=True))
    drawn = Table(f"Letters delivered by {person}", ("Day", "Letters"), rows)
    total = sum(counts)
    solution = (
        f"Add the numbers:\n{' + '.join(map(str, counts))} = {total}\nDivide by the number of days:\n"
        f"{total} / {len(days)} = {mean}\nThe mean is {mean}."
    )
    question = f"{person} noted the letters delivered each day. What is the mean of the numbers?"
    return WordProblem(drawn, question, str(mean), "letters", None, solution, "integer_number")


def money(cents: int) -> str:
    return f"${cents // 100}.{cents % 100:02d}"
