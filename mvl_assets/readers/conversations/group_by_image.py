"""Groups questions that a file asks one by one into one conversation per image.

LLaVA-1.5's mix (arXiv 2310.03744, table 7) and The Cauldron convert these sets so: the 943,000 questions of GQA's
balanced training split are 72,000 rows, the 443,757 of VQA v2 are 83,000. The paper's prompt for text-rich images
takes all questions of an image at once, too (arXiv 2412.05237). A question that cannot be used is a reject of its own
and costs its image nothing; but no image is taken from a file that cannot be read to its end, because questions about
it may come after the break. Only training splits are read, as in those sets: the others have no answers, or are
benchmarks.

A file's questions about one image need not be adjacent, so rows come in the order of the images' names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.external_group_by import group_by_external_sort
from mvl_assets.readers.files import resolve_image
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, INCOMPLETE_FILE
from mvl_assets.readers.rows import Row, add_image_markers, build_qa_turns, parse_native_id
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample, Turn

MAX_QUESTIONS = 4096
"""Questions (and answers in files of their own) that one image may have."""

_IMAGE_PREFIX, _REJECT_KEY = "a", "b"  # prefixes of the sort keys: rows without an image come last


class VqaRecord(NamedTuple):
    """A question with its answer, or half of it: the field that another element holds is None."""

    question_id: str
    question: Any = None
    answer: Any = None
    reject: tuple[str, str] | None = None


class ImageVqaRecord(NamedTuple):
    """One element of a file: the name of an image, with a question, an answer or both."""

    image_name: str
    record: VqaRecord


ImageResolver = Callable[[str], EncodedImage]


def iter_image_records(
    rows: Iterable[Row | RejectedRow], to_image_record: Callable[[Row], ImageVqaRecord]
) -> Iterator[ImageVqaRecord | RejectedRow]:
    """Yield `to_image_record` of every row, or the reject that says why it cannot be made."""
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
            continue
        try:
            yield to_image_record(row)
        except RejectError as error:
            yield RejectedRow(row.file, row.position, error.code, error.message)


def get_name_field(row: Row, *fields: str) -> str:
    """Return the id or file name that the first of `fields` holds. Raises `RejectError("missing_field")`."""
    name_value = next((name for field in fields if (name := parse_native_id(row.value.get(field))) is not None), None)
    if name_value is None:
        raise RejectError("missing_field", f"the element has no {' or '.join(fields)}")
    return name_value


def resolve_first_image(root: Path, names: Sequence[str], folders: Sequence[str]) -> EncodedImage:
    """Return the image under the first of its possible names that exists. Raises `RejectError` as `resolve_image`."""
    for name in names[:-1]:
        try:
            return resolve_image(root, name, folders)
        except RejectError as error:
            if error.code != "missing_image":
                raise
    return resolve_image(root, names[-1], folders)


def group_questions_by_image(
    file: str, image_records: Iterable[ImageVqaRecord | RejectedRow], image_resolver: ImageResolver
) -> Iterator[Sample | RejectedRow]:
    """Yield one sample per image, named by the image, and a reject per question that cannot be used.

    Records are joined by image and question id on disk: memory does not grow with the file.

    Args:
        file: Name of the file in samples and rejects.
        image_records: What the elements of the file (or of two files) say, in any order.
        image_resolver: Finds an image by its name.
    """
    return number_rows(_iter_conversations(file, image_records, image_resolver))


def iter_conversation(
    file: str, image_name: str, records: Iterable[VqaRecord], image_resolver: ImageResolver
) -> Iterator[Sample | RejectedRow]:
    """Yield one sample of all questions that can be used, then a reject per other one; all without positions.

    Args:
        file: File of the records, relative to the source's folder.
        image_name: Name of the image that all records are about.
        records: The questions.
        image_resolver: Finds the image's bytes.
    """
    turns: list[Turn] = []
    rejects: list[RejectedRow] = []
    for record in records:
        try:
            turns += _build_turns(record)
        except RejectError as error:
            message = f"question {record.question_id} about {image_name}: {error.message}"
            rejects.append(RejectedRow(file, 0, error.code, message))
    if turns:
        try:
            yield Sample(file, 0, add_image_markers(tuple(turns), 1), image_name, (image_resolver(image_name),))
        except RejectError as error:
            yield RejectedRow(file, 0, error.code, error.message, image_name)
    yield from rejects


def number_rows(rows: Iterable[Sample | RejectedRow]) -> Iterator[Sample | RejectedRow]:
    """Yield the rows of one file with positions from 0, in the order in which they come."""
    for position, row in enumerate(rows):
        yield replace(row, position=position)


def _iter_conversations(
    file: str, image_records: Iterable[ImageVqaRecord | RejectedRow], image_resolver: ImageResolver
) -> Iterator[Sample | RejectedRow]:
    file_rejects: list[RejectedRow] = []
    for key, values in group_by_external_sort(
        _to_sort_row(image_record, file_rejects) for image_record in image_records
    ):  # all are read before the first is returned
        if key == _REJECT_KEY:
            for error, message in values:
                yield RejectedRow(file, 0, error, message)
            continue
        image_name = key.removeprefix(_IMAGE_PREFIX)
        records = [VqaRecord(*value) for value in islice(values, MAX_QUESTIONS + 1)]
        if file_rejects:
            message = f"{file_rejects[0].file} breaks off, so questions about {image_name} may be missing"
            yield RejectedRow(file, 0, INCOMPLETE_FILE, message, image_name)
        elif len(records) > MAX_QUESTIONS:
            message = f"there are more than {MAX_QUESTIONS} questions or answers about {image_name}"
            yield RejectedRow(file, 0, "too_many_questions", message, image_name)
        else:
            yield from iter_conversation(file, image_name, _merge_by_question_id(records), image_resolver)


def _to_sort_row(image_record: ImageVqaRecord | RejectedRow, file_rejects: list[RejectedRow]) -> tuple[str, Any]:
    """Return the row to sort. The first record that is a broken file is put into `file_rejects`."""
    if isinstance(image_record, RejectedRow):
        if image_record.error == BROKEN_FILE and not file_rejects:
            file_rejects.append(image_record)
        return _REJECT_KEY, [
            image_record.error,
            f"element {image_record.position} of {image_record.file}: {image_record.message}",
        ]
    return _IMAGE_PREFIX + image_record.image_name, image_record.record


def _merge_by_question_id(records: Iterable[VqaRecord]) -> list[VqaRecord]:
    """Join halves of one id, in the order in which the ids come first."""
    record_by_id: dict[str, VqaRecord] = {}
    duplicates: list[VqaRecord] = []
    for record in records:
        first_record = record_by_id.setdefault(record.question_id, record)
        if first_record is record:
            continue
        question_record, answer_record = (first_record, record) if record.question is None else (record, first_record)
        if (
            answer_record.question is None
            and question_record.question is not None
            and question_record.answer is None
            and question_record.reject is None
        ):
            record_by_id[record.question_id] = answer_record._replace(question=question_record.question)
        else:
            duplicates.append(VqaRecord(record.question_id, reject=("duplicate_id", "the id was used before")))
    return [*record_by_id.values(), *duplicates]


def _build_turns(record: VqaRecord) -> tuple[Turn, ...]:
    if record.question is None and (record.answer is not None or record.reject is None):
        raise RejectError("no_question", "there is no question of this id")
    if record.reject is not None:
        raise RejectError(*record.reject)
    if record.answer is None:
        raise RejectError("no_answer", "there is no answer to it")
    return add_image_markers(build_qa_turns(record.question, record.answer), 0)
