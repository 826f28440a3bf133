"""Reader of all YAML files: duplicate keys are errors, and every error names its file and line.

    document = read_document(path)            # or iter_documents(path), or parse_documents(text, name)
    profile = document.validate(Profile)      # YamlError: "profile.yaml:12: models.qwen: unknown key"

A file is checked before values are built from it: libyaml's Python binding recurses in C, where unbounded nesting
crashes the process, and aliases of aliases expand to gigabytes from a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.errors import MvlError

# libyaml parses about eight times faster than the pure Python parser; a build without it still works.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 100
MAX_VALUES = 1_000_000
"""Limits on the nesting depth, and on the number of values in a file with every alias expanded."""


class StrictModel(BaseModel):
    """Base class of models read from YAML: unknown keys are errors, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ModelT = TypeVar("ModelT", bound=BaseModel)


class YamlError(MvlError):
    """A YAML file or value that cannot be used.

    `line` counts from 1 and is None when the fault has no place in the file. `key` is the dotted path of the value at
    fault, empty for the document itself. `problem` is the message without both.
    """

    def __init__(
        self, source: str, problem: str, *, line: int | None = None, key: str = "", hint: str | None = None
    ) -> None:
        self.source = source
        self.line = line
        self.key = key
        self.problem = problem
        location = source if line is None else f"{source}:{line}"
        super().__init__(f"{location}: {f'{key}: ' if key else ''}{problem}", hint=hint)


class _StrictLoader(_BaseLoader):
    """Safe loader (no tags that make objects) that refuses duplicate keys, which YAML itself forbids (1.2 §3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping. Raises `ConstructorError` for a key that is given twice."""
        first_lines: dict[object, int] = {}
        for key, _ in node.value:
            # A merge key may come with the keys it overrides.
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first_lines:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key.value!r} is given twice (first in line {first_lines[key.value]})",
                    key.start_mark,
                )
            first_lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value. A number or date that Python cannot represent is an error with its line, too."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, IndexError, AttributeError, OverflowError) as error:
            problem = f"{str(node.value)[:40]!r} is not a valid {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a file. `source` is what errors call the file; lines count from 1."""

    value: Any
    line: int
    source: str
    _node: yaml.Node
    _line_offset: int = 0

    def find_line(self, key_path: Sequence[int | str]) -> int:
        """Return the line of the value at `key_path` (keys and indices from the top), or of its nearest ancestor."""
        node, line = self._node, self.line
        for key in key_path:
            if isinstance(node, yaml.MappingNode):
                entry = next((pair for pair in node.value if pair[0].value == key), None)
                if entry is None:
                    return line
                line, node = entry[0].start_mark.line + 1 + self._line_offset, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1 + self._line_offset
            else:
                return line
        return line

    def validate(self, model: type[ModelT], key_path: Sequence[int | str] = (), *, hint: str | None = None) -> ModelT:
        """Return the value at `key_path` as a checked `model`.

        Args:
            model: The pydantic model of the value.
            key_path: Keys and indices from the top of the document; they must exist. Error keys do not repeat them.
            hint: What errors say to do next.

        Raises:
            YamlError: Names the first mistake. An unknown key comes first: it may be a required one, misspelled.
        """
        value = self.value
        for key in key_path:
            value = value[key]
        try:
            return model.model_validate(value)
        except ValidationError as error:
            first_error = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
            problem = (
                "unknown key"
                if first_error["type"] == "extra_forbidden"
                else first_error["msg"].removeprefix("Value error, ")
            )
            more_note = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise YamlError(
                self.source,
                f"{problem}{more_note}",
                line=self.find_line([*key_path, *first_error["loc"]]),
                key=".".join(str(part) for part in first_error["loc"]),
                hint=hint,
            ) from error


def iter_documents(path: Path) -> Iterator[YamlDocument]:
    """Yield all documents of a YAML file. Raises `YamlError` naming the file and line when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(str(path), f"cannot be read: {error}") from error
    yield from parse_documents(text, str(path))


def read_document(path: Path, *, hint: str | None = None) -> YamlDocument:
    """Return the only document of a YAML file.

    Raises:
        YamlError: The file cannot be read or does not hold exactly one document; `hint` says what to do next.
    """
    try:
        documents = list(iter_documents(path))
    except YamlError as error:
        raise YamlError(error.source, error.problem, line=error.line, hint=hint) from error
    if len(documents) != 1:
        raise YamlError(str(path), f"holds {len(documents)} YAML documents, not one", hint=hint)
    return documents[0]


def parse_documents(text: str, source: str, *, line_offset: int = 0) -> Iterator[YamlDocument]:
    """Yield the documents of a YAML text.

    Args:
        text: YAML, with one or more documents.
        source: What errors call the file.
        line_offset: Lines of the file before `text` begins.

    Raises:
        YamlError: Names the file and line.
    """
    try:
        _check_limits(text)
        loader = _StrictLoader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                value = loader.construct_document(node)
                yield YamlDocument(value, node.start_mark.line + 1 + line_offset, source, node, line_offset)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1 + line_offset
        raise YamlError(source, str(error.problem or error.context), line=line) from error
    except yaml.YAMLError as error:
        raise YamlError(source, " ".join(str(error).split())) from error


def _check_limits(text: str) -> None:
    """Raise `yaml.YAMLError` for values that are nested too deep, are too many, or contain themselves."""
    value_counts = [0]  # values so far in each open collection, the whole file first
    open_anchors: list[str | None] = []  # their anchors
    anchor_counts: dict[str | None, int] = {}  # number of values under an anchor
    event: Any
    for event in yaml.parse(text, Loader=_BaseLoader):
        n_values, anchor = 0, getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            value_counts.append(1)
            open_anchors.append(anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            n_values, anchor = value_counts.pop(), open_anchors.pop()
            anchor_counts[anchor] = n_values
        elif isinstance(event, yaml.AliasEvent):
            n_values = anchor_counts.get(anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            n_values = anchor_counts[anchor] = 1
        value_counts[-1] += n_values
        problem = None
        if len(open_anchors) > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep"
        elif isinstance(event, yaml.AliasEvent) and anchor in open_anchors:
            problem = f"*{anchor} contains itself"
        elif value_counts[-1] > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values"
        if problem is not None:
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
