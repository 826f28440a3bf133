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
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DEEPEST = 100
MOST_VALUES = 1_000_000
"""How deep values may lie inside each other, and how many a file may have with every alias written out."""


class _Loader(_Base):
    """Safe loader (no tags that make objects) that refuses duplicate keys, which YAML itself forbids (1.2 §3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[object, int] = {}
        for key, _ in node.value:
            # A merge key may stand beside the keys it overrides.
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key.value!r} is given twice (first in line {seen[key.value]})",
                    key.start_mark,
                )
            seen[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As the safe loader does; what Python cannot make of a number or a date is an error with its line, too."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, IndexError, AttributeError, OverflowError) as error:
            said = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file. Lines count from 1."""

    value: Any
    line: int
    _node: yaml.Node

    def line_of(self, place: Sequence[int | str]) -> int:
        """The line of the value at `place` (keys and indices from the top), or of the nearest thing above it."""
        node, line = self._node, self.line
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == step), None)
                if found is None:
                    return line
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                return line
        return line


def documents(path: Path) -> Iterator[Document]:
    """All documents of a YAML file. Raises `MvlError` naming the file and line when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MvlError(f"{path}: cannot be read: {error}") from error
    try:
        _look_over(text)
        yield from _constructed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}" if mark is None else f"{path}:{mark.line + 1}"
        raise MvlError(f"{where}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise MvlError(f"{path}: {' '.join(str(error).split())}") from error


def _constructed(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield Document(loader.construct_document(node), node.start_mark.line + 1, node)
    finally:
        loader.dispose()


def _look_over(text: str) -> None:
    """Raises `yaml.YAMLError` for values that lie too deep, are too many, or contain themselves."""
    weights = [0]  # values so far in each collection that is open, the whole file first
    opened: list[str | None] = []  # their anchors
    known: dict[str | None, int] = {}  # what an anchor's value weighs
    event: Any
    for event in yaml.parse(text, Loader=_Base):
        weight, anchor = 0, getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            weights.append(1)
            opened.append(anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            weight, anchor = weights.pop(), opened.pop()
            known[anchor] = weight
        elif isinstance(event, yaml.AliasEvent):
            weight = known.get(anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            weight = known[anchor] = 1
        weights[-1] += weight
        said = None
        if len(opened) > DEEPEST:
            said = f"more than {DEEPEST} values inside each other"
        elif isinstance(event, yaml.AliasEvent) and anchor in opened:
            said = f"*{anchor} stands inside itself"
        elif weights[-1] > MOST_VALUES:
            said = f"more than {MOST_VALUES:,} values"
        if said is not None:
            raise yaml.constructor.ConstructorError(None, None, said, event.start_mark)
