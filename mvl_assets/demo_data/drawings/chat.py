"""Text-only conversations for the language sources: worked sums and small tasks with checkable answers."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import DrawnQAPair, join_with_and, sample_int
from mvl_assets.demo_data.drawings.tables import PERSON_NAMES

WORDS = ("river", "candle", "orange", "violin", "meadow", "basket", "island", "jacket", "kettle", "ladder", "pepper")


def build_math_problem(rng: Random) -> DrawnQAPair:
    """Return a word problem of one to three steps; the answer is a whole number."""
    person = rng.choice(PERSON_NAMES)
    factor, unit_amount, amount = sample_int(rng, 2, 12), sample_int(rng, 3, 20), sample_int(rng, 1, 5)
    kind = rng.randrange(4)
    if kind == 0:
        total = factor * unit_amount
        return DrawnQAPair(
            f"{person} has {factor} boxes with {unit_amount} pencils each and gives away {amount}. "
            "How many pencils are left?",
            str(total - amount),
            f"{factor} boxes of {unit_amount} pencils are {factor} x {unit_amount} = {total} pencils.\n"
            f"After giving away {amount}, {total} - {amount} = {total - amount} are left.",
        )
    if kind == 1:
        minutes = factor * unit_amount
        return DrawnQAPair(
            f"{person} swims {factor} lanes and needs {unit_amount} minutes for each, then rests {amount} minutes. "
            "How many minutes does that take in all?",
            str(minutes + amount),
            f"The lanes take {factor} x {unit_amount} = {minutes} minutes.\n"
            f"With the rest that is {minutes} + {amount} = {minutes + amount}.",
        )
    if kind == 2:
        x = sample_int(rng, 2, 15)
        return DrawnQAPair(
            f"Solve for x: {factor}x + {unit_amount} = {factor * x + unit_amount}",
            str(x),
            f"Subtract {unit_amount} from both sides: {factor}x = {factor * x}.\n"
            f"Divide both sides by {factor}: x = {x}.",
        )
    total = factor * amount
    return DrawnQAPair(
        f"{total} children form teams of {amount}. How many teams are there?",
        str(factor),
        f"Each team has {amount} children, so there are {total} / {amount} = {factor} teams.",
    )


def build_text_task(rng: Random) -> DrawnQAPair:
    """Return a task of sorting, counting or rewriting words."""
    words = rng.sample(WORDS, sample_int(rng, 3, 6))
    word = rng.choice(words)
    kind = rng.randrange(4)
    if kind == 0:
        return DrawnQAPair(
            f"Put these words in alphabetical order: {', '.join(words)}.",
            ", ".join(sorted(words)),
            "Comparing the words letter by letter from the left gives their order.",
        )
    if kind == 1:
        longest = max(len(word) for word in words)
        longest_words = [word for word in words if len(word) == longest]
        lengths = join_with_and([f"{word} has {len(word)} letters" for word in words])
        return DrawnQAPair(
            f"Which of these words are the longest: {', '.join(words)}?", ", ".join(longest_words), f"{lengths}."
        )
    if kind == 2:
        return DrawnQAPair(
            f'Write the word "{word}" backwards.',
            word[::-1],
            f"From its last letter to its first, the word reads {', '.join(word[::-1])}.",
        )
    body = f'def count_{word}s(words: list[str]) -> int:\n    return sum(word == "{word}" for word in words)'
    return DrawnQAPair(
        f'Write a Python function that counts how often "{word}" occurs in a list of words.',
        f"\n```python\n{body}\n```",
        "The comparison of each word is True or False, and Python adds those up as 1 and 0.",
    )
