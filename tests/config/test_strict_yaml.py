"""The strict YAML reader: values with their lines, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.strict_yaml import (
    MAX_DEPTH,
    StrictModel,
    YamlError,
    iter_documents,
    parse_documents,
    read_document,
)


class Engine(StrictModel):
    power: int


class Car(StrictModel):
    name: str
    engines: tuple[Engine, ...] = ()


def parse_one(text: str, line_offset: int = 0):
    (document,) = parse_documents(text, "cars.yaml", line_offset=line_offset)
    return document


def fail(text: str) -> YamlError:
    with pytest.raises(YamlError) as caught:
        list(parse_documents(text, "cars.yaml"))
    return caught.value


def test_documents_know_their_first_line_and_the_lines_of_their_values(tmp_path: Path) -> None:
    path = tmp_path / "cars.yaml"
    path.write_text("name: a\n---\nname: b\nengines:\n- power: 1\n- power: 2\n", encoding="utf-8")
    first, second = iter_documents(path)
    assert (first.line, second.line, second.source) == (1, 3, str(path))
    assert second.find_line(["engines", 1, "power"]) == 6
    assert second.find_line(["engines", 7, "power"]) == 4
    assert second.find_line(["colour"]) == 3


def test_line_offset_moves_all_lines() -> None:
    document = parse_one("name: a\nengines: []\n", line_offset=10)
    assert (document.line, document.find_line(["engines"])) == (11, 12)
    with pytest.raises(YamlError, match=r"^cars\.yaml:13: "):
        list(parse_documents("name: a\n\nname: b\n", "cars.yaml", line_offset=10))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("name: a\nname: b\n", 2, "the key 'name' is given twice (first in line 1)"),
        ("name: [a\n", 2, "did not find expected"),
        ("when: 2024-02-31\n", 1, "'2024-02-31' is not a valid timestamp"),
        ("a: &a [*a]\n", 1, "*a contains itself"),
        ("[" * (MAX_DEPTH + 1), 1, "levels deep"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "could not determine a constructor"),
    ],
)
def test_invalid_yaml_is_an_error_with_its_line(text: str, line: int, problem: str) -> None:
    error = fail(text)
    assert (error.source, error.line) == ("cars.yaml", line)
    assert problem in error.problem


def test_aliases_that_multiply_values_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert "more than 1,000,000 values" in fail("\n".join(lines)).problem


def test_merge_keys_may_be_overridden() -> None:
    assert parse_one("base: &b {x: 1, y: 2}\ncar: {<<: *b, y: 3}\n").value["car"] == {"x": 1, "y": 3}


def test_validate_returns_the_model_at_a_key_path() -> None:
    document = parse_one("cars:\n- name: a\n  engines: [{power: 3}]\n")
    assert document.validate(Car, ["cars", 0]) == Car(name="a", engines=(Engine(power=3),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nengines:\n- power: many\n", "cars.yaml:3: engines.0.power: Input should be a valid integer"),
        ("nam: a\n", "cars.yaml:1: nam: unknown key (and 1 more)"),
        ("- a\n", "cars.yaml:1: Input should be a valid dictionary"),
    ],
)
def test_validate_names_file_line_and_key_of_a_wrong_value(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_one(text).validate(Car, hint="mend it")
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "mend it"


@pytest.mark.parametrize("text", ["", "a: 1\n---\nb: 2\n"])
def test_read_document_wants_exactly_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cars.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(YamlError, match="YAML documents, not one"):
        read_document(path)


def test_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match=r"none\.yaml: cannot be read"):
        read_document(tmp_path / "none.yaml")
