"""An XML file as one record: a field for each element, as in Pascal VOC's annotations.

```
<annotation><filename>7.jpg</filename><object><name>cat</name></object><object><name>dog</name></object></annotation>
{"filename": "7.jpg", "object": [{"name": "cat"}, {"name": "dog"}]}
```

Attributes are fields, too. Elements of one name are a list; one alone is not, since nothing in the file says that
there may be more: `{object.*.name}` reads both.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from mvl_assets.common.rejects import RejectError

MAX_DEPTH = 100
TEXT_FIELD = "text"
"""Field of the text of an element that has attributes or elements."""


def parse_xml(data: bytes) -> Any:
    """Return the content of the outermost element.

    Raises:
        RejectError: `bad_xml`. Files that declare entities are refused: a few bytes of those become gigabytes.
    """
    builder = _RecordBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.begin_element
    parser.EndElementHandler = builder.end_element
    parser.CharacterDataHandler = builder.add_text
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        raise RejectError("bad_xml", str(error)) from error
    return builder.content


class _RecordBuilder:
    """Builds the record while the file is parsed, without recursion."""

    def __init__(self) -> None:
        self.content: Any = None
        self._fields: list[dict[str, Any]] = []
        self._texts: list[list[str]] = []

    def begin_element(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._fields) >= MAX_DEPTH:
            raise RejectError("bad_xml", f"elements are nested deeper than {MAX_DEPTH}")
        self._fields.append(dict(attributes))
        self._texts.append([])

    def add_text(self, text: str) -> None:
        if self._texts:
            self._texts[-1].append(text)

    def end_element(self, name: str) -> None:
        fields, text = self._fields.pop(), "".join(self._texts.pop()).strip()
        value: Any = fields or text or None
        if fields and text:
            fields.setdefault(TEXT_FIELD, text)
        if not self._fields:
            self.content = value
            return
        parent, local_name = self._fields[-1], name.rpartition(":")[2]
        if local_name not in parent:
            parent[local_name] = value
        elif isinstance(parent[local_name], list):
            parent[local_name].append(value)
        else:
            parent[local_name] = [parent[local_name], value]


def _refuse_entity(*_: Any) -> None:
    raise RejectError("bad_xml", "it declares entities, which are not read")
