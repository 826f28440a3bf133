"""Questions that a file asks one by one, made one conversation per picture.

LLaVA-1.5's mix (arXiv 2310.03744, table 7) and The Cauldron convert these sets so: the 943,000 questions of GQA's
balanced training split are 72,000 rows, the 443,757 of VQA v2 are 83,000. The paper's prompt for text-rich pictures
takes all questions of a picture at once, too (arXiv 2412.05237). A question that cannot be used is a broken row of its
own and costs its picture nothing; but of a file that cannot be read to its end no picture is taken, because questions
about it may lie behind the break. Only training splits are read, as those sets do: the other ones hold no answers, or
are benchmarks.

A file's questions about one picture need not stand together, so rows come in the order of the pictures' names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mvl_assets.readers.external_group_by import gathered
from mvl_assets.readers.files import picture_at
from mvl_assets.readers.json_stream import BROKEN_FILE, INCOMPLETE
from mvl_assets.readers.rows import Row, RowError, native_id, question_and_answer, with_markers
from mvl_assets.readers.sample import Broken, Picture, Sample, Turn

MAX_QUESTIONS = 4096
"""Questions (and answers in files of their own) that one picture may have."""

_PICTURE, _LOST = "a", "b"  # what the keys of the sorting begin with: rows without a picture come last


class Question(NamedTuple):
    """A question with its answer, or half of it: `text` or `answer` is None where another element holds it.

    `fault` is the error class and message that make it unusable.
    """

    id: str
    text: Any = None
    answer: Any = None
    fault: tuple[str, str] | None = None


class Part(NamedTuple):
    """What one element of a file says about a picture."""

    picture: str
    question: Question


Find = Callable[[str], Picture]


def parts_of(rows: Iterable[Row | Broken], make: Callable[[Row], Part]) -> Iterator[Part | Broken]:
    """`make` of every row, or the reason why it cannot be made."""
    for row in rows:
        if isinstance(row, Broken):
            yield row
            continue
        try:
            yield make(row)
        except RowError as error:
            yield Broken(row.file, row.position, error.error, error.message)


def name_in(row: Row, *fields: str) -> str:
    """The id or file name that the first of `fields` holds. Raises `RowError("missing_field")`."""
    found = next((name for field in fields if (name := native_id(row.value.get(field))) is not None), None)
    if found is None:
        raise RowError("missing_field", f"the element has no {' or '.join(fields)}")
    return found


def picture_called(root: Path, names: Sequence[str], folders: Sequence[str]) -> Picture:
    """The picture under the first of its possible names that is there. Raises `RowError` as `picture_at` does."""
    for name in names[:-1]:
        try:
            return picture_at(root, name, folders)
        except RowError as error:
            if error.error != "missing_picture":
                raise
    return picture_at(root, names[-1], folders)


def by_picture(file: str, parts: Iterable[Part | Broken], find: Find) -> Iterator[Sample | Broken]:
    """One sample per picture, called by its name, and the questions that cannot be used.

    Parts are joined by picture and question id, on disk: memory does not grow with the file.
    """
    return numbered(_conversations(file, parts, find))


def conversation(file: str, picture: str, questions: Iterable[Question], find: Find) -> Iterator[Sample | Broken]:
    """One sample of all questions that can be used, then the others; all without positions."""
    turns: list[Turn] = []
    broken: list[Broken] = []
    for question in questions:
        try:
            turns += _turns(question)
        except RowError as error:
            message = f"question {question.id} about {picture}: {error.message}"
            broken.append(Broken(file, 0, error.error, message))
    if turns:
        try:
            yield Sample(file, 0, with_markers(tuple(turns), 1), picture, (find(picture),))
        except RowError as error:
            yield Broken(file, 0, error.error, error.message, picture)
    yield from broken


def numbered(rows: Iterable[Sample | Broken]) -> Iterator[Sample | Broken]:
    """The rows of one file with positions from 0, in the order in which they come."""
    for position, row in enumerate(rows):
        yield replace(row, position=position)


def _conversations(file: str, parts: Iterable[Part | Broken], find: Find) -> Iterator[Sample | Broken]:
    breaks: list[Broken] = []
    for key, values in gathered(_entry(part, breaks) for part in parts):  # all are read before the first comes back
        if key == _LOST:
            for error, message in values:
                yield Broken(file, 0, error, message)
            continue
        picture = key.removeprefix(_PICTURE)
        found = [Question(*value) for value in islice(values, MAX_QUESTIONS + 1)]
        if breaks:
            message = f"{breaks[0].file} breaks off, so questions about {picture} may be missing"
            yield Broken(file, 0, INCOMPLETE, message, picture)
        elif len(found) > MAX_QUESTIONS:
            message = f"there are more than {MAX_QUESTIONS} questions or answers about {picture}"
            yield Broken(file, 0, "too_many_questions", message, picture)
        else:
            yield from conversation(file, picture, _joined(found), find)


def _entry(part: Part | Broken, breaks: list[Broken]) -> tuple[str, Any]:
    """What is sorted. The first part that is a broken file is put into `breaks`."""
    if isinstance(part, Broken):
        if part.error == BROKEN_FILE and not breaks:
            breaks.append(part)
        return _LOST, [part.error, f"element {part.position} of {part.file}: {part.message}"]
    return _PICTURE + part.picture, part.question


def _joined(found: Iterable[Question]) -> list[Question]:
    """Halves of one id put together, in the order in which the ids come first."""
    whole: dict[str, Question] = {}
    repeated: list[Question] = []
    for one in found:
        other = whole.setdefault(one.id, one)
        if other is one:
            continue
        asked, told = (other, one) if one.text is None else (one, other)
        if told.text is None and asked.text is not None and asked.answer is None and asked.fault is None:
            whole[one.id] = told._replace(text=asked.text)
        else:
            repeated.append(Question(one.id, fault=("duplicate_id", "the id was used before")))
    return [*whole.values(), *repeated]


def _turns(question: Question) -> tuple[Turn, ...]:
    if question.text is None and (question.answer is not None or question.fault is None):
        raise RowError("no_question", "there is no question of this id")
    if question.fault is not None:
        raise RowError(*question.fault)
    if question.answer is None:
        raise RowError("no_answer", "there is no answer to it")
    return with_markers(question_and_answer(question.text, question.answer), 0)
