"""What a drawing module gives: a picture, true questions and answers about it, and a true caption.

Belongs here: the record types, the palette and the font, shared by every drawing module. Not here: any drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]

# Far enough apart that a JPEG or a palette keeps them distinct, and each has one plain English name.
COLOURS: MappingProxyType[str, RGB] = MappingProxyType(
    {
        "red": (214, 39, 40),
        "green": (44, 150, 62),
        "blue": (35, 86, 205),
        "yellow": (245, 205, 30),
        "purple": (132, 58, 170),
        "orange": (245, 130, 25),
        "black": (20, 20, 20),
        "pink": (240, 130, 180),
    }
)
PAPERS: tuple[RGB, ...] = ((255, 255, 255), (250, 247, 238), (238, 243, 248), (244, 244, 244))
INK: RGB = (30, 30, 34)
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Pair:
    """One question. `answer` is the short key; `steps` are one or more sentences that lead to it.

    `choices` are the answer and wrong ones of its kind, where the question can be asked with choices.
    """

    question: str
    answer: str
    steps: str
    choices: tuple[str, ...] = ()

    @property
    def detailed(self) -> str:
        """The answer in the manner of a source that is kept unchanged: reasons first, then the key."""
        return f"{self.steps}\n\nAnswer: {self.answer}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with what is true about it.

    `needs_colour`: answers would be lost in a grey picture. `photo`: grainy, so a PNG of it would be large.
    """

    picture: Image.Image
    pairs: tuple[Pair, ...]
    caption: str
    needs_colour: bool = True
    photo: bool = False


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font inside Pillow at `size` pixels, so that no machine draws with fonts of its own."""
    return ImageFont.load_default(size=size)


def canvas(size: tuple[int, int], paper: RGB) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", size, paper)
    return picture, ImageDraw.Draw(picture)


def text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int, ink: RGB = INK, anchor: str = "la"
) -> None:
    """Write `words` with Pillow's two-letter anchor at `at` (pixels)."""
    draw.text(at, words, fill=ink, font=font(size), anchor=anchor)


def width_of(words: str, size: int) -> int:
    return int(font(size).getlength(words)) + 1


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def a(noun: str) -> str:
    """`a circle`, `an orange circle`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(count: int, noun: str) -> str:
    """`one circle`, `three circles`."""
    return f"{NUMBER_WORDS[count] if count <= 10 else count} {noun}{'' if count == 1 else 's'}"


def between(rng: Random, low: int, high: int, step: int = 1) -> int:
    """A whole number from `low` to `high` inclusive, in steps."""
    return rng.randrange(low, high + 1, step)
