"""YAML that keeps the promises people think it makes: a key given twice is an error, and every value knows its line.

A file is looked over before values are made of it: libyaml's Python binding recurses in C, where nesting without end is
a crash, and aliases of aliases make gigabytes of a few hundred bytes.

Belongs here: reading documents into plain values. Does not: what the values mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mvl_assets.errors import MvlError

# libyaml parses about eight times faster than the pure Python parser; a build without it still works.
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 100
MAX_VALUES = 1_000_000
"""How deep values may lie inside each other, and how many a file may have with every alias written out."""


class _StrictLoader(_BaseLoader):
    """Safe loader (no tags that make objects) that refuses duplicate keys, which YAML itself forbids (1.2 §3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[object, int] = {}
        for key, _ in node.value:
            # A merge key may stand beside the keys it overrides.
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
        """As the safe loader does; what Python cannot make of a number or a date is an error with its line, too."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, IndexError, AttributeError, OverflowError) as error:
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a file. Lines count from 1."""

    value: Any
    line: int
    _node: yaml.Node

    def find_line(self, key_path: Sequence[int | str]) -> int:
        """The line of the value at `key_path` (keys and indices from the top), or of the nearest thing above it."""
        node, line = self._node, self.line
        for key in key_path:
            if isinstance(node, yaml.MappingNode):
                entry = next((pair for pair in node.value if pair[0].value == key), None)
                if entry is None:
                    return line
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                return line
        return line


def iter_documents(path: Path) -> Iterator[YamlDocument]:
    """All documents of a YAML file. Raises `MvlError` naming the file and line when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MvlError(f"{path}: cannot be read: {error}") from error
    try:
        _check_limits(text)
        yield from _iter_constructed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = f"{path}" if mark is None else f"{path}:{mark.line + 1}"
        raise MvlError(f"{location}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise MvlError(f"{path}: {' '.join(str(error).split())}") from error


def _iter_constructed(text: str) -> Iterator[YamlDocument]:
    loader = _StrictLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield YamlDocument(loader.construct_document(node), node.start_mark.line + 1, node)
    finally:
        loader.dispose()


def _check_limits(text: str) -> None:
    """Raises `yaml.YAMLError` for values that lie too deep, are too many, or contain themselves."""
    value_counts = [0]  # values so far in each collection that is open, the whole file first
    open_anchors: list[str | None] = []  # their anchors
    anchor_counts: dict[str | None, int] = {}  # what an anchor's value weighs
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
            problem = f"more than {MAX_DEPTH} values inside each other"
        elif isinstance(event, yaml.AliasEvent) and anchor in open_anchors:
            problem = f"*{anchor} stands inside itself"
        elif value_counts[-1] > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values"
        if problem is not None:
            raise yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
