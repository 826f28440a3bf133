"""Text-only conversations for the language sources: worked sums and small tasks with checkable answers."""

from __future__ import annotations

from random import Random

from mvl_assets.demo_data.drawings.drawing import Pair, between, listing
from mvl_assets.demo_data.drawings.tables import NAMES

WORDS = ("river", "candle", "orange", "violin", "meadow", "basket", "island", "jacket", "kettle", "ladder", "pepper")


def sum_problem(rng: Random) -> Pair:
    """A word problem of one to three steps; the answer is a whole number."""
    person = rng.choice(NAMES)
    boxes, each, given = between(rng, 2, 12), between(rng, 3, 20), between(rng, 1, 5)
    kind = rng.randrange(4)
    if kind == 0:
        total = boxes * each
        return Pair(
            f"{person} has {boxes} boxes with {each} pencils each and gives away {given}. How many pencils are left?",
            str(total - given),
            f"{boxes} boxes of {each} pencils are {boxes} x {each} = {total} pencils.\n"
            f"After giving away {given}, {total} - {given} = {total - given} are left.",
        )
    if kind == 1:
        minutes = boxes * each
        return Pair(
            f"{person} swims {boxes} lanes and needs {each} minutes for each, then rests {given} minutes. "
            "How many minutes does that take in all?",
            str(minutes + given),
            f"The lanes take {boxes} x {each} = {minutes} minutes.\n"
            f"With the rest that is {minutes} + {given} = {minutes + given}.",
        )
    if kind == 2:
        x = between(rng, 2, 15)
        return Pair(
            f"Solve for x: {boxes}x + {each} = {boxes * x + each}",
            str(x),
            f"Subtract {each} from both sides: {boxes}x = {boxes * x}.\nDivide both sides by {boxes}: x = {x}.",
        )
    total = boxes * given
    return Pair(
        f"{total} children form teams of {given}. How many teams are there?",
        str(boxes),
        f"Each team has {given} children, so there are {total} / {given} = {boxes} teams.",
    )


def small_task(rng: Random) -> Pair:
    """Sorting, counting or rewriting words."""
    words = rng.sample(WORDS, between(rng, 3, 6))
    word = rng.choice(words)
    kind = rng.randrange(4)
    if kind == 0:
        return Pair(
            f"Put these words in alphabetical order: {', '.join(words)}.",
            ", ".join(sorted(words)),
            "Comparing the words letter by letter from the left gives their order.",
        )
    if kind == 1:
        longest = max(len(word) for word in words)
        found = [word for word in words if len(word) == longest]
        lengths = listing([f"{word} has {len(word)} letters" for word in words])
        return Pair(f"Which of these words are the longest: {', '.join(words)}?", ", ".join(found), f"{lengths}.")
    if kind == 2:
        return Pair(
            f'Write the word "{word}" backwards.',
            word[::-1],
            f"From its last letter to its first, the word reads {', '.join(word[::-1])}.",
        )
    body = f'def count_{word}s(words: list[str]) -> int:\n    return sum(word == "{word}" for word in words)'
    return Pair(
        f'Write a Python function that counts how often "{word}" occurs in a list of words.',
        f"\n```python\n{body}\n```",
        "The comparison of each word is True or False, and Python adds those up as 1 and 0.",
    )
