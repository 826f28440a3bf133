"""Guesses which field of a record is what: conversation, question, answer, choices, id; by names and by values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mvl_assets.readers.parsers.embedded_bytes import EmbeddedBytes
from mvl_assets.readers.sample import EncodedImage
from mvl_assets.readers.sniffing.listing import IMAGE_SUFFIXES, SPLIT_NAMES

QUESTION_NAMES = (
    "question",
    "problem",
    "query",
    "instruction",
    "prompt",
    "input",
    "sentence",
    "userquestion",
    "user",
    "human",
    "questiontext",
    "textquestion",
    "originalquestion",
    "q",
    "utterance",
    "task",
    "text1",
    "request",
    "prefix",
    *("frage", "fragetext", "aufgabe", "pregunta", "domanda", "pergunta", "vraag", "вопрос", "问题", "問題", "質問"),
)
ANSWER_NAMES = (
    "answer",
    "answers",
    "response",
    "output",
    "solution",
    "gpt",
    "assistant",
    "answertext",
    "target",
    "label",
    "correctanswer",
    "groundtruth",
    "gt",
    "gold",
    "multiplechoiceanswer",
    "originalanswer",
    "a",
    "completion",
    "reply",
    "groundtruthanswer",
    "expectedanswer",
    "finalanswer",
    "suffix",
    "chosen",  # of a pair of preferences the better one
    "preferred",
    *("antwort", "lösung", "réponse", "reponse", "respuesta", "risposta", "resposta", "antwoord", "ответ"),
    *("答案", "回答", "答え"),
)
CAPTION_NAMES = (
    "caption",
    "captions",
    "description",
    "descriptions",
    "txt",
    "text",
    "sentence",
    "sentences",
    "recaption",
    "longcaption",
    "shortcaption",
    "alttext",
    "transcription",
    "label",
    "latex",
    "formula",
    "html",
    "code",
    "summary",
    "class",
    "classname",
    "category",
    "cls",
    "value",
    *("beschreibung", "bildunterschrift", "légende", "descripción", "描述"),
)
CHOICE_NAMES = ("choices", "options", "candidates", "multiplechoices", "answerchoices", "mcoptions", "possibleanswers")
ID_NAMES = (
    "id",
    "questionid",
    "qid",
    "uid",
    "uuid",
    "sampleid",
    "pid",
    "recordid",
    "problemid",
    "index",
    "key",
    "name",
)
TURN_NAMES = ("conversations", "messages", "conversation", "dialog", "dialogue", "turns", "texts", "chosen")
MIN_PASSAGE_WORDS = 5
CONTEXT_NAMES, HINT_NAMES, UNIT_NAMES = ("context", "passage"), ("hint",), ("unit",)
MAX_KEY_VALUES = 12
FILE_SUFFIXES = IMAGE_SUFFIXES | {".mp4", ".webm", ".avi", ".mov", ".mkv", ".wav", ".mp3", ".txt", ".json", ".pdf"}
CAPTION_QUESTION = "Describe the image."
TRANSCRIBE_QUESTION = "Write down what the image shows."
LABEL_NAMES = frozenset(("cls", "label", "class", "classname", "target", "category"))
TRANSCRIBE_NAMES = frozenset(("transcription", "latex", "formula", "html", "code"))

_ROLE_KEYS, _TEXT_KEYS = ("from", "role"), ("value", "content")
_LETTER = re.compile(r"\s*\(?[A-Za-z]\)?\.?\s*")


@dataclass(slots=True)
class Fields:
    """The values of every field over the records looked at; `a.b` is `b` inside `a`.

    Attributes:
        values: Values by field; null ones are left out.
        n_records: Number of records.
    """

    values: dict[str, list[Any]]
    n_records: int
    used: set[str] = field(default_factory=set)

    def find(self, names: Sequence[str], fits: Callable[[list[Any]], bool]) -> str | None:
        """Return the field with the first of the names whose values fit, the least deep one; None without any."""
        for name in names:
            for path in sorted(self.values, key=lambda path: path.count(".")):
                if path not in self.used and normalize(path) == name and fits(self.values[path]):
                    return path
        return None

    def take(self, path: str) -> str:
        """Mark a field as used and return it."""
        self.used.add(path)
        return path


def collect_fields(records: Iterable[Mapping[str, Any]]) -> Fields:
    """Return the fields of records."""
    values: dict[str, list[Any]] = {}
    n_records = 0
    for record in records:
        n_records += 1
        _collect(record, "", values, 0)
    return Fields(values, n_records)


def _collect(record: Mapping[str, Any], prefix: str, values: dict[str, list[Any]], depth: int) -> None:
    for key, value in record.items():
        if value is None or not isinstance(key, str) or "{" in key or "}" in key:
            continue
        path = prefix + key
        if isinstance(value, Mapping) and depth < 3 and not is_image_cell(value) and not _is_columns(value):
            _collect(value, f"{path}.", values, depth + 1)
        else:
            values.setdefault(path, []).append(value)


def infer_text_fields(
    fields: Fields, label_names: Mapping[str, Sequence[str]], notes: list[str], given: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the keys of a field map that say where the texts are; none when no field looks like one.

    Args:
        fields: The fields of the records.
        label_names: Names of label numbers, by field.
        notes: Gets what a person should check.
        given: `question` and `answer` as far as they are known: fields, or templates.
    """
    if given:
        return _use_given_fields(fields, label_names, notes, given)
    if (guess := _infer_turns(fields)) or (guess := _infer_pairs(fields)):
        return guess
    question = fields.find(QUESTION_NAMES, is_text) or next(
        (
            path
            for path, values in fields.values.items()
            if is_text(values) and _compute_share(values, _is_question) > 0.5
        ),
        None,
    )
    columns = _find_parallel_lists(fields) if question is None else None
    if columns is not None:
        question, answer = map(fields.take, columns)
        return {"pairs": [question, answer], "question": f"{{{question}}}", "answer": f"{{{answer}}}"}
    guess = {"question": f"{{{fields.take(question)}}}"} if question is not None else {}
    answer_path = fields.find(ANSWER_NAMES, _is_answer) or _find_by_part(fields, ("answer", "label", "response"))
    if answer_path is None and question is not None and (answer_path := _find_by_exclusion(fields)) is not None:
        notes.append(f"no field is named like an answer: {answer_path} is taken (`--answer FIELD` names another)")
    if answer_path is None and question is None:
        answer_path = fields.find(CAPTION_NAMES, _is_answer) or _find_by_part(fields, ("caption", "description"))
    if answer_path is None:
        return {}
    if question is None:
        guess["question"] = _choose_question(normalize(answer_path))
        notes.append(
            f"no field looks like a question: every record is asked {guess['question']!r}; word it as you like"
        )
    guess |= _infer_answer(fields, fields.take(answer_path), label_names, notes)
    guess |= _infer_choices(fields, guess, notes)
    for key, names, fits in (
        ("context", CONTEXT_NAMES, _is_passage),
        ("hint", HINT_NAMES, is_text),
        ("unit", UNIT_NAMES, is_text),
    ):
        if question is not None and (path := fields.find(names, fits)) is not None:
            guess[key] = fields.take(path)
    return guess


def _is_passage(values: list[Any]) -> bool:
    """Return whether values are sentences, and not kinds such as "natural image"."""
    return is_text(values) and _compute_share(values, lambda value: len(str(value).split()) >= MIN_PASSAGE_WORDS) > 0.5


def _use_given_fields(
    fields: Fields, label_names: Mapping[str, Sequence[str]], notes: list[str], given: Mapping[str, str]
) -> dict[str, Any]:
    """Return question and answer as given, and what is not given as it looks; none where a field is missing."""
    names = [name for value in given.values() for name in list_fields(value) or [value]]
    constants = {value for key, value in given.items() if key == "question" and " " in value}
    for name in names:
        path = next((path for path in fields.values if name == path or name.startswith(f"{path}.")), None)
        if path is not None:
            fields.used.add(path)
        elif name not in constants:
            return {}
    texts = {key: f"{{{value}}}" if value in fields.values else value for key, value in given.items()}
    if "answer" not in texts:
        answer = fields.find(ANSWER_NAMES, _is_answer) or _find_by_exclusion(fields)
        return {} if answer is None else texts | _infer_answer(fields, fields.take(answer), label_names, notes)
    if "question" not in texts:
        question = fields.find(QUESTION_NAMES, is_text)
        texts["question"] = CAPTION_QUESTION if question is None else f"{{{fields.take(question)}}}"
    if given["answer"] in fields.values:
        texts |= _infer_answer(fields, given["answer"], label_names, notes)
    return texts | _infer_choices(fields, texts, notes)


def list_fields(template: str) -> list[str]:
    """Return the fields that a template names."""
    return [name.split(":")[0] for name in re.findall(r"\{([^{}]+)\}", template)]


def _find_by_exclusion(fields: Fields) -> str | None:
    """Return the one field that can be an answer: neither used nor the name of a file, a split, a number of the row."""

    def may_be_answer(path: str, values: list[Any]) -> bool:
        texts = [str(value).strip() for value in values]
        return (
            path not in fields.used
            and 2 * len(values) > fields.n_records
            and all(isinstance(value, str | int | float) for value in values)
            and any(texts)
            and normalize(path) not in ID_NAMES
            and not any(PurePosixPath(text[-100:]).suffix.lower() in FILE_SUFFIXES for text in texts)
            and not {text.lower() for text in texts if text} <= SPLIT_NAMES
        )

    candidates = [path for path, values in fields.values.items() if may_be_answer(path, values)]
    return candidates[0] if len(candidates) == 1 else None


def _choose_question(answer_name: str) -> str:
    if answer_name in TRANSCRIBE_NAMES:
        return TRANSCRIBE_QUESTION
    return "What is in the image?" if answer_name in LABEL_NAMES else CAPTION_QUESTION


def infer_key_values(fields: Fields, notes: list[str]) -> dict[str, Any]:
    """Return the texts of records that are a few values by name, such as what is printed on a receipt."""

    def may_be_printed(values: list[Any]) -> bool:
        return len(values) == fields.n_records and all(
            isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and PurePosixPath(str(value)[-100:]).suffix.lower() not in FILE_SUFFIXES
            for value in values
        )

    paths = [
        path for path, values in fields.values.items() if len(values) == fields.n_records if may_be_printed(values)
    ]
    if not 1 <= len(paths) <= MAX_KEY_VALUES or len(paths) < len(fields.values) - len(paths):
        return {}
    notes.append("the values are taken as what is to be read in the image: word question and answer as you like")
    names = ", ".join(path.replace("_", " ") for path in paths)
    answer = "\n".join(f"{path.replace('_', ' ')}: {{{fields.take(path)}}}" for path in paths)
    return {"question": f"Read in the image: {names}.", "answer": answer}


def infer_listed_labels(fields: Fields, notes: list[str]) -> dict[str, Any]:
    """Return the texts of records with a list of things in the image, such as objects with names or lines of text."""
    for path, values in fields.values.items():
        entries = [entry for value in values for entry in _list_objects(value) if isinstance(entry, dict)]
        inner = collect_fields(entries)
        label = inner.find([*CAPTION_NAMES, "name", "labels", "words", "word"], is_text) if len(entries) > 1 else None
        if label is not None:
            fields.used |= {name for name in fields.values if name == path or name.startswith(f"{path}.")}
            is_text_of_image = normalize(label) in (*TRANSCRIBE_NAMES, "text", "word", "words")
            notes.append(
                f"{path} is a list of what is in the image, of which {label} is taken: word the question as you like"
            )
            question = TRANSCRIBE_QUESTION if is_text_of_image else "Name everything that is marked in the image."
            return {"question": question, "answer": f"{{{path}.*.{label}}}"}
    return {}


def infer_id(fields: Fields) -> str | None:
    """Return the field that names the records: there in all of them and never twice."""

    def is_unique(values: list[Any]) -> bool:
        texts = {str(value) for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)}
        return len(texts) == len(values) == fields.n_records

    path = fields.find(ID_NAMES, is_unique)
    return None if path is None else fields.take(path)


def is_image_cell(value: Any) -> bool:
    """Return whether a value is an image itself: bytes, {bytes, path}, or a member of an archive."""
    if isinstance(value, Mapping):
        return "bytes" in value and set(value) <= {"bytes", "path"}
    return isinstance(value, bytes | EmbeddedBytes | EncodedImage)


def is_text(values: Sequence[Any]) -> bool:
    """Return whether the values are texts and not all of them blank."""
    return bool(values) and all(isinstance(value, str) for value in values) and any(value.strip() for value in values)


def normalize(path: str) -> str:
    """Return the last part of a field's path in lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", path.rpartition(".")[2].lower())


def parse_cell(value: Any) -> Any:
    """Return the list or object that a text holds as JSON, else the value."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _compute_share(values: Sequence[Any], fits: Callable[[Any], bool]) -> float:
    return sum(map(fits, values)) / len(values) if values else 0.0


def _is_question(value: Any) -> bool:
    return isinstance(value, str) and value.rstrip().endswith(("?", "？"))


def _is_columns(value: Mapping[str, Any]) -> bool:
    """Return whether an object is a list of objects, written as an object of lists."""
    lists = list(value.values())
    return (
        len(lists) > 1
        and all(isinstance(column, list) for column in lists)
        and len({len(column) for column in lists}) == 1
        and any(isinstance(entry, str) for column in lists for entry in column[:1])
    )


def _list_objects(value: Any) -> list[Any]:
    """Return a list of objects, also one that is written as JSON text or as an object of lists; else none."""
    value = parse_cell(value)
    if isinstance(value, Mapping) and _is_columns(value):
        return [dict(zip(value, entry, strict=True)) for entry in zip(*value.values(), strict=True)]
    return value if isinstance(value, list) and value and all(isinstance(entry, dict | list) for entry in value) else []


def _infer_turns(fields: Fields) -> dict[str, Any]:
    def is_conversation(values: list[Any]) -> bool:
        return _compute_share(values, lambda value: any(map(_is_turn, _list_objects(value)[:1]))) > 0.5

    path = fields.find(TURN_NAMES, is_conversation) or next(
        (path for path, values in fields.values.items() if is_conversation(values)), None
    )
    return {} if path is None else {"turns": fields.take(path)}


def _is_turn(entry: Any) -> bool:
    return isinstance(entry, dict) and any(k in entry for k in _ROLE_KEYS) and any(k in entry for k in _TEXT_KEYS)


def _infer_pairs(fields: Fields) -> dict[str, Any]:
    for path, values in fields.values.items():
        entries = [entry for value in values for entry in _list_objects(value)]
        objects = [entry for entry in entries if isinstance(entry, dict)]
        if objects:
            inner = collect_fields(objects)
            question = inner.find(QUESTION_NAMES, is_text)
            answer = inner.find(ANSWER_NAMES, _is_answer) if question is not None else None
            if question is not None and answer is not None and answer != question:
                guess = {"pairs": fields.take(path), "question": f"{{{question}}}"}
                return guess | _infer_answer(inner, answer, {}, [])
        elif (
            entries
            and all(len(entry) == 2 and is_text(entry) for entry in entries)
            and _compute_share(entries, lambda entry: _is_question(entry[0])) > 0.5
        ):
            return {"pairs": fields.take(path), "question": "{0}", "answer": "{1}"}
    return {}


def _find_parallel_lists(fields: Fields) -> tuple[str, str] | None:
    """Return two fields that are lists of texts of equal lengths: questions and answers."""

    def is_text_list(values: list[Any]) -> bool:
        return all(isinstance(value, list) and (not value or is_text(value)) for value in values)

    question = fields.find([*QUESTION_NAMES, "questions", "qs"], is_text_list)
    answer = fields.find([*ANSWER_NAMES, "as"], is_text_list)
    if question is None or answer is None:
        return None
    lengths = zip(map(len, fields.values[question]), map(len, fields.values[answer]), strict=False)
    return (question, answer) if all(n == m for n, m in lengths) else None


def _is_answer(values: list[Any]) -> bool:
    value = next((value for value in map(parse_cell, values) if value not in ("", [])), None)
    if isinstance(value, list):
        return all(isinstance(entry, str | int | float | dict) for entry in value)
    return isinstance(value, str | int | float)


def _find_by_part(fields: Fields, parts: Sequence[str]) -> str | None:
    """Return the first field whose name holds one of the words, and which may be an answer."""
    return next(
        (
            path
            for part in parts
            for path, values in fields.values.items()
            if path not in fields.used
            and part in normalize(path)
            and "id" not in normalize(path)[-3:]
            and _is_answer(values)
            and any(isinstance(value, str) and value for value in values)
        ),
        None,
    )


def _infer_answer(
    fields: Fields, path: str, label_names: Mapping[str, Sequence[str]], notes: list[str]
) -> dict[str, Any]:
    """Return `answer`, and what says how it is written."""
    values = [parse_cell(value) for value in fields.values[path]]
    if path in label_names:
        return {"answer": f"{{{path}}}", "names": {path: list(label_names[path])}}
    if all(isinstance(value, bool) for value in values):
        return {"answer": f"{{{path}}}", "names": {path: ["No", "Yes"]}}
    lists = [value for value in values if isinstance(value, list) and value]
    if not lists:
        if normalize(path) in LABEL_NAMES and all(isinstance(value, int) or str(value).isdecimal() for value in values):
            notes.append(f"{path} holds numbers: say what they mean with `names: {{{path}: [...]}}`")
        return {"answer": f"{{{path}}}"}
    entry_key = next(
        (key for key in ("answer", "text", "value") if all(isinstance(e, dict) and key in e for v in lists for e in v)),
        None,
    )
    n_repeated = sum(len({str(entry).casefold() for entry in value}) < len(value) for value in lists)
    if max(map(len, lists)) >= 3 and 2 * n_repeated > len(lists):
        notes.append(f"{path} holds several people's answers: the most frequent one is taken")
        return {"answer": f"{{{path}}}", "answer_is": "votes"}
    tail = f".{entry_key}" if entry_key is not None else ""
    if any(len(value) > 1 for value in lists):
        notes.append(f"{path} is a list: the first is taken; {{{path}.*{tail}}} takes all of it")
    return {"answer": f"{{{path}.0{tail}}}"}


def _infer_choices(fields: Fields, guess: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    def is_choices(values: list[Any]) -> bool:
        return _compute_share(values, lambda value: isinstance(parse_cell(value), list | dict)) > 0.5

    path = fields.find(CHOICE_NAMES, is_choices)
    lettered = [name for name in "ABCDEFGHIJ" if name in fields.values]
    if path is not None:
        choices: list[Any] = [parse_cell(value) for value in fields.values[path]]
        result: dict[str, Any] = {"choices": fields.take(path)}
    elif lettered[:2] == ["A", "B"]:
        choices = [dict.fromkeys(lettered, "")]
        result = {"choices": [fields.take(name) for name in lettered]}
    else:
        return {}
    answer_path = str(guess["answer"]).strip("{}")
    answers = [str(value).strip() for value in fields.values.get(answer_path, [])]
    texts = {str(text).strip() for value in choices for text in (value.values() if isinstance(value, dict) else value)}
    if answers and _compute_share(answers, lambda answer: answer in texts) > 0.9:
        return result
    if answers and all(map(_LETTER.fullmatch, answers)):
        return result | {"answer_is": "letter"}
    if answers and all(answer.isdecimal() for answer in answers):
        if "0" not in answers:
            notes.append(f"{answer_path} is taken as the number of a choice from 0; no record looked at has 0")
        return result | {"answer_is": "index"}
    return result
