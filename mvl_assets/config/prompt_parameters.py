"""Parameters of prompts: how much is asked for, and in what style. A prompt file sets them, a profile changes them.

    parameters:                              # in the front matter; `prompt_parameters: {<family>: …}` in a profile
      pairs: {min: 2, max: 3}                # pairs of an answer, or rounds of a conversation
      answer_words: {min: 80, max: 250}
      reasoning_steps: {min: 3, max: 8}
      style: precise and plain, as a good teacher writes

`{{parameters.answer_words}}` in the template is replaced by "80 to 250" when the file is read, so that a change is part
of the prompt's hash. `pairs` is also the bounds of the schema's list of `pairs` or `turns`, which has none of its own.
Limits of length grow with more pairs and words than the file's, so that they stay guards; they never shrink.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from mvl_assets.config.strict_yaml import StrictModel

_SLOT = re.compile(r"\{\{parameters\.([A-Za-z0-9_]*)\}\}")
_LISTS = ("pairs", "turns")


class Range(StrictModel):
    """How many, from `min` to `max`."""

    min: int = Field(ge=1)
    max: int = Field(le=100_000)

    @model_validator(mode="after")
    def _validate_order(self) -> Range:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min} to {self.max}"


class PromptParameters(StrictModel):
    """Parameters of a prompt, or changes of them; None is one that the prompt does not have, or keeps."""

    pairs: Range | None = None
    answer_words: Range | None = None
    reasoning_steps: Range | None = None
    style: str | None = Field(default=None, min_length=1, max_length=400, pattern=r"^[^\n{}<>]+$")

    @property
    def values(self) -> dict[str, Range | str]:
        """The parameters that are set, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def replace(self, changes: PromptParameters) -> PromptParameters:
        """Return the parameters with `changes`.

        Raises:
            ValueError: The prompt has no such parameter.
        """
        if unknown_names := sorted(set(changes.values) - set(self.values)):
            raise ValueError(
                f"the prompt has no parameter {', '.join(unknown_names)}; it has {', '.join(self.values) or 'none'}"
            )
        return self.model_copy(update=changes.values)

    def fill_template(self, template: str) -> str:
        """Return the template with the values of the parameters.

        Raises:
            ValueError: It has a slot of no parameter, or none of one that is not a bound of the schema's list.
        """
        used_names = {slot[1] for slot in _SLOT.finditer(template)}
        if unknown_names := sorted(used_names - set(self.values)):
            raise ValueError(f"{{{{parameters.{unknown_names[0]}}}}} is none of {sorted(self.values)}")
        if unused_names := sorted(set(self.values) - used_names - {"pairs"}):
            raise ValueError(f"the parameter {unused_names[0]!r} is not used")
        return _SLOT.sub(lambda slot: str(self.values[slot[1]]), template)


@dataclass(frozen=True, slots=True)
class Growth:
    """How much more changed parameters ask for than those of the prompt file, as factors.

    Attributes:
        pairs: Of pairs at most.
        words: Of words an answer at most.
        expected: Of what a usual answer takes.
    """

    pairs: float = 1.0
    words: float = 1.0
    expected: float = 1.0

    @classmethod
    def compare(cls, changed: PromptParameters, own: PromptParameters) -> Growth:
        """Return the growth from `own` to `changed`."""
        pairs, words = (
            (1.0, 1.0) if a is None or b is None else (a.max / b.max, (a.min + a.max) / (b.min + b.max))
            for a, b in ((changed.pairs, own.pairs), (changed.answer_words, own.answer_words))
        )
        return cls(max(1.0, pairs[0]), max(1.0, words[0]), pairs[1] * words[1])

    def compute_limit(self, max_tokens: int) -> int:
        """Return a limit of tokens with room for more."""
        return math.ceil(max_tokens * self.pairs * self.words)


def fill_schema(
    schema: Mapping[str, Any], parameters: PromptParameters, task_types: Mapping[str, str] | None, growth: Growth
) -> dict[str, Any]:
    """Return the schema with the bounds of its list, the task types as its kinds, and room for longer answers.

    Raises:
        ValueError: There is no such list, or it has bounds of its own.
    """
    properties: Mapping[str, Any] = schema.get("properties", {})
    name = next((name for name in _LISTS if name in properties), None)
    if name is None:
        if parameters.pairs is not None:
            raise ValueError("`pairs` goes with a schema that has a list `pairs` or `turns`")
        return dict(schema)
    entries = dict(properties[name])
    if parameters.pairs is not None:
        if {"minItems", "maxItems"} & set(entries):
            raise ValueError(f"`pairs` gives the bounds of `{name}`, so that its schema has no minItems and maxItems")
        entries |= {"minItems": parameters.pairs.min, "maxItems": parameters.pairs.max}
    if "properties" in entries.get("items", {}):
        fields = dict(entries["items"]["properties"])
        if task_types is not None and fields.get("kind") == {}:
            fields["kind"] = {"enum": list(task_types)}
        if growth.words > 1 and "maxLength" in fields.get("answer", {}):
            max_length = math.ceil(fields["answer"]["maxLength"] * growth.words)
            fields["answer"] = {**fields["answer"], "maxLength": max_length}
        entries["items"] = {**entries["items"], "properties": fields}
    return {**schema, "properties": {**properties, name: entries}}
