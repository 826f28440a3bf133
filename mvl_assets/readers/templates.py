"""Templates of a field map filled from one record: `"tables/{id}.png"`, `"{image_id:012d}.jpg"`, `"{output.answer}"`.

Belongs here: what a field name and a template mean. Not here: what is filled in where (`records`).
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mvl_assets.errors import SourceError
from mvl_assets.readers.rows import Row, RowError

_PADDED = re.compile(r"0([1-9]\d?)d")


def check_template(slug: str, template: str) -> None:
    """Raises `SourceError` for a template that no record can fill."""
    try:
        for _, field, form, conversion in string.Formatter().parse(template):
            if conversion or field == "" or (form and not _PADDED.fullmatch(form)):
                raise ValueError("write fields as {field}, {field.inner} or, padded with zeros, {field:012d}")
    except ValueError as error:
        raise SourceError(slug, f"the template {template!r} cannot be used: {error}") from error


@dataclass(frozen=True, slots=True)
class Record:
    """A record, with templates and dotted field names filled from it."""

    row: Row

    def value(self, field: str | None) -> Any:
        """The value of a field (`a.b` looks inside), None when it or the field's name is absent."""
        if field is None:
            return None
        if field == "id" and "id" not in self.row.value:
            return self.row.native_id
        found: Any = self.row.value
        for part in [field] if field in self.row.value else field.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        # Tables written by pandas say NaN where a cell is empty.
        return None if isinstance(found, float) and math.isnan(found) else found

    def text(self, field: str | None) -> str:
        """The field's text, "" when there is none."""
        found = self.value(field)
        return "" if field is None or found is None else plain(found, field).strip()

    def fill(self, template: str) -> str:
        """The template with its fields filled. Raises `RowError("missing_field")` for one that has no value."""
        parts = []
        for literal, field, form, _ in string.Formatter().parse(template):
            parts.append(literal)
            if field is not None:
                native = self.row.native_id if field == "id" else None
                found = self.value(field) if native is None else native
                if found is None or found == "":
                    raise RowError("missing_field", f"the record has no {field!r}")
                parts.append(_padded(plain(found, field), field, form) if form else plain(found, field))
        return "".join(parts)

    def narrowed(self, entry: Mapping[str, Any]) -> Record:
        """The record with the fields of an object inside it laid over its own."""
        return Record(replace(self.row, value={**self.row.value, **entry}))


def plain(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError("bad_field", f"{field} holds a {type(value).__name__} where text was expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError("not_a_number", f"{field} holds {value}")
    return str(value)


def _padded(text: str, field: str, form: str) -> str:
    if not text.isdecimal():
        raise RowError("bad_field", f"{field} holds {text[:40]!r} where a whole number was expected")
    return text.zfill(int(form[1:-1]))
