"""Templates of a field map filled from one record: `"tables/{id}.png"`, `"{image_id:012d}.jpg"`, `"{output.answer}"`.

`formats.records` decides which template fills which part of a conversation.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.rows import Row

_ZERO_PAD_FORMAT = re.compile(r"0([1-9]\d?)d")


def check_template(slug: str, template: str) -> None:
    """Raise `SourceError` for a template that no record can fill."""
    try:
        for _, field, format_spec, conversion in string.Formatter().parse(template):
            if conversion or field == "" or (format_spec and not _ZERO_PAD_FORMAT.fullmatch(format_spec)):
                raise ValueError("write fields as {field}, {field.inner} or, padded with zeros, {field:012d}")
    except ValueError as error:
        raise SourceError(slug, f"the template {template!r} cannot be used: {error}") from error


@dataclass(frozen=True, slots=True)
class Record:
    """A record, with templates and dotted field names filled from it."""

    row: Row

    def get_value(self, field: str | None) -> Any:
        """Return the value of a field (`a.b` looks inside), None when it or the field's name is absent."""
        if field is None:
            return None
        if field == "id" and "id" not in self.row.value:
            return self.row.native_id
        value: Any = self.row.value
        for key in [field] if field in self.row.value else field.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        # Tables written by pandas say NaN where a cell is empty.
        return None if isinstance(value, float) and math.isnan(value) else value

    def get_text(self, field: str | None) -> str:
        """Return the field's text, "" when there is none."""
        value = self.get_value(field)
        return "" if field is None or value is None else format_scalar(value, field).strip()

    def render(self, template: str) -> str:
        """Return the template with its fields filled. Raises `RejectError("missing_field")` for one without a value."""
        parts = []
        for literal, field, format_spec, _ in string.Formatter().parse(template):
            parts.append(literal)
            if field is not None:
                native_id = self.row.native_id if field == "id" else None
                value = self.get_value(field) if native_id is None else native_id
                if value is None or value == "":
                    raise RejectError("missing_field", f"the record has no {field!r}")
                parts.append(
                    _zero_pad(format_scalar(value, field), field, format_spec)
                    if format_spec
                    else format_scalar(value, field)
                )
        return "".join(parts)

    def overlay(self, entry: Mapping[str, Any]) -> Record:
        """Return the record with the fields of an object inside it laid over its own."""
        return Record(self.row._replace(value={**self.row.value, **entry}))


def format_scalar(value: Any, field: str) -> str:
    """Return a value as text for a template."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RejectError("bad_field", f"{field} holds a {type(value).__name__} where text was expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise RejectError("not_a_number", f"{field} holds {value}")
    return str(value)


def _zero_pad(text: str, field: str, format_spec: str) -> str:
    if not text.isdecimal():
        raise RejectError("bad_field", f"{field} holds {text[:40]!r} where a whole number was expected")
    return text.zfill(int(format_spec[1:-1]))
