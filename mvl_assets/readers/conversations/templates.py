"""Templates of a field map filled from one record: `"tables/{id}.png"`, `"{image_id:012d}.jpg"`, `"{output.answer}"`.

`{answers.0}` is the first of a list, `{answers.*}` all of it with commas between, `{answers.*.text}` a field of each;
`{tokens.+}` is all of it with nothing between.

`formats.records` decides which template fills which part of a conversation.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.rows import Row

Names = Mapping[str, Sequence[str] | Mapping[str, str]]
"""What the values of a field mean, by field: a list for label numbers and booleans, else value -> name."""

LIST_SEPARATORS = {"*": ", ", "+": ""}
_INDEX = re.compile(r"-?\d{1,9}")
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
    names: Names
    empty_values: Collection[str] = ()

    def get_value(self, field: str | None) -> Any:
        """Return the value of a field, None when it or the field's name is absent.

        `a.b` looks inside an object, `a.0` inside a list; `a.*` and `a.+` are lists of what all its elements have.
        """
        if field is None:
            return None
        if field == "id" and "id" not in self.row.value:
            return self.row.native_id
        value = _find_value(self.row.value, [field] if field in self.row.value else field.split("."))
        # Tables written by pandas say NaN where a cell is empty.
        is_nan = isinstance(value, float) and math.isnan(value)
        return None if is_nan or (isinstance(value, str) and value in self.empty_values) else value

    def get_text(self, field: str | None) -> str:
        """Return the field's text, "" when there is none."""
        value = self.get_value(field)
        return "" if field is None or value is None else self._format_value(value, field).strip()

    def render(self, template: str) -> str:
        """Return the template with its fields filled. Raises `RejectError("missing_field")` for one without a value."""
        parts = []
        for literal, field, format_spec, _ in string.Formatter().parse(template):
            parts.append(literal)
            if field is not None:
                native_id = self.row.native_id if field == "id" else None
                value = self.get_value(field) if native_id is None else native_id
                if value is None or value in ("", []):
                    raise RejectError("missing_field", f"the record has no {field!r}")
                text = self._format_value(value, field)
                parts.append(_zero_pad(text, field, format_spec) if format_spec else text)
        return "".join(parts)

    def overlay(self, entry: Mapping[str, Any]) -> Record:
        """Return the record with the fields of an object inside it laid over its own."""
        return replace(self, row=self.row._replace(value={**self.row.value, **entry}))

    def _format_value(self, value: Any, field: str) -> str:
        if separators := [LIST_SEPARATORS[key] for key in field.split(".") if key in LIST_SEPARATORS]:
            return self._join_lists(value, field, separators)
        return self._format_part(value, field)

    def _join_lists(self, value: Any, field: str, separators: Sequence[str]) -> str:
        """Return the parts of a list joined by the first separator, those of a list in it by the next or last one."""
        if not isinstance(value, list):
            return self._format_part(value, field)
        inner_separators = separators[1:] or separators
        return separators[0].join(self._join_lists(part, field, inner_separators) for part in value)

    def _format_part(self, value: Any, field: str) -> str:
        if (names := self.names.get(field)) is not None:
            return _find_name(names, value, field)
        return format_scalar(value, field)


def format_scalar(value: Any, field: str) -> str:
    """Return a value as text for a template."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        advice = ""
        if isinstance(value, bool):
            advice = f"; say what it means with `names: {{{field}: ['no', 'yes']}}`"
        elif isinstance(value, list):
            advice = f"; `{{{field}.0}}` is the first of a list, `{{{field}.*}}` all of it"
        raise RejectError("bad_field", f"{field} holds a {type(value).__name__} where text was expected{advice}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RejectError("not_a_number", f"{field} holds {value}")
    return str(value)


def _zero_pad(text: str, field: str, format_spec: str) -> str:
    if not text.isdecimal():
        raise RejectError("bad_field", f"{field} holds {text[:40]!r} where a whole number was expected")
    return text.zfill(int(format_spec[1:-1]))


def _find_value(value: Any, keys: Sequence[str]) -> Any:
    for index, key in enumerate(keys):
        if isinstance(value, Mapping):
            # One XML element of a name is what stands in its list where there are several.
            value = [value] if key in LIST_SEPARATORS and key not in value else value
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key in LIST_SEPARATORS:
            parts = [_find_value(part, keys[index + 1 :]) for part in value]
            return [part for part in parts if part not in (None, "", [])]
        elif isinstance(value, list) and _INDEX.fullmatch(key):
            position = int(key)
            value = value[position] if -len(value) <= position < len(value) else None
        else:
            return None
    return value


def _find_name(names: Sequence[str] | Mapping[str, str], value: Any, field: str) -> str:
    """Return what a value means. Raises `RejectError("unknown_label")`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(names, Mapping):
        name = names.get(str(value).lower() if isinstance(value, bool) else str(value))
    else:
        text = str(int(value)) if isinstance(value, bool) else str(value)
        number = int(text) if text.isdecimal() and len(text) < 10 else len(names)
        name = names[number] if number < len(names) else None
    if name is None:
        raise RejectError("unknown_label", f"{field} is {str(value)[:60]!r}, which `names` does not have")
    return name
