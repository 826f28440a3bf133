"""YAML that keeps the promises people think it makes: a key given twice is an error, and every value knows its line.

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


class _Loader(_Base):
    """Safe loader (no tags that make objects) that refuses duplicate keys, which YAML itself forbids (1.2 §3.2.1.3)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[object, int] = {}
        for key, _ in node.value:
            # A merge key may stand beside the keys it overrides.
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {key.value!r} is given twice (first in line {seen[key.value]})",
                    key.start_mark,
                )
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
        return super().construct_mapping(node, deep)


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
        loader = _Loader(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MvlError(f"{path}: cannot be read: {error}") from error
    try:
        while loader.check_node():
            node = loader.get_node()
            yield Document(loader.construct_document(node), node.start_mark.line + 1, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}" if mark is None else f"{path}:{mark.line + 1}"
        raise MvlError(f"{where}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise MvlError(f"{path}: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
