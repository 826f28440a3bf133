"""Front matter of a prompt file: its keys, and the checks of template and schema that go with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.strict_yaml import StrictModel
from mvl_assets.errors import MvlError

FENCE_OPEN, FENCE_CLOSE = "<sample>", "</sample>"
# The slot keeps its name: templates are part of every prompt's hash, and so of every request's key.
IMAGES_SLOT, CRITERION_SLOT, TASK_TYPES_SLOT = "pictures", "criterion", "task_types"
CONVERSATION_INPUT, REFERENCE_INPUT = "conversation", "reference"
_ALLOWED_INPUTS = {
    ("rewrite", "pair"): frozenset({"question", "answer"}),
    ("rewrite", "sample"): frozenset({"pairs", "caption"}),
    ("judge", "pair"): frozenset({"conversation"}),
    ("score", "pair"): frozenset({"conversation"}),
    ("probe", "pair"): frozenset({"question"}),
}
SLOT = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}")

PromptRole = Literal["rewrite", "judge", "score", "probe"]
OutputKind = Literal["text", "json", "choice"]


class PromptError(MvlError):
    """A prompt file that cannot be used, with the file and the key at fault; `line` is None where it is not known."""

    def __init__(self, file: str, key: str, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        self.file = file
        self.key = key
        location = file if line is None else f"{file}:{line}"
        super().__init__(f"prompt {location}: {key}: {message}", hint=hint)


class SamplingParams(StrictModel):
    """Sampling parameters of a request. No seed: vLLM's CPU build crashes on a seed with temperature above 0."""

    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(ge=1)
    # Above 0 it breaks the loops small models fall into; it also punishes the digits a long calculation repeats.
    frequency_penalty: float | None = Field(default=None, ge=0, le=2)


class RetrySampling(StrictModel):
    """Sampling parameters that differ when an unusable answer is asked for once more."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    frequency_penalty: float | None = Field(default=None, ge=0, le=2)


class FrontMatter(StrictModel):
    """Keys of a prompt file; see the module's docstring."""

    role: PromptRole
    family: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    unit: Literal["pair", "sample"] = "pair"
    modality: Literal["vision", "text"]
    no_image_note: str | None = None
    output: OutputKind
    # `schema` would hide a method of pydantic's.
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    options: tuple[str, ...] | None = Field(default=None, min_length=2)
    sampling: SamplingParams
    retry_sampling: RetrySampling | None = None
    inputs: tuple[str, ...] = Field(min_length=1)
    criteria: dict[str, str] | None = Field(default=None, min_length=1)
    parameters: PromptParameters = PromptParameters()
    task_types: dict[str, str] | None = Field(default=None, min_length=1)
    reference: str | None = None
    expected_tokens: int | None = Field(default=None, ge=1)
    version: int = Field(ge=1)
    note: str

    @model_validator(mode="after")
    def _validate_consistency(self) -> FrontMatter:
        if (self.output == "json") != (self.json_schema is not None):
            raise ValueError("`schema` goes with `output: json`, and only with it")
        if (self.output == "choice") != (self.options is not None):
            raise ValueError("`options` goes with `output: choice`, and only with it")
        if (self.modality == "vision") != (self.no_image_note is not None):
            raise ValueError(
                "`no_image_note`, the text for a model that cannot see, goes with `modality: vision`, and only with it"
            )
        allowed_inputs = _ALLOWED_INPUTS.get((self.role, self.unit))
        if allowed_inputs is None:
            raise ValueError(f"a {self.role} prompt cannot have `unit: {self.unit}`")
        unknown_inputs = sorted(set(self.inputs) - allowed_inputs)
        if unknown_inputs:
            raise ValueError(
                f"`inputs` {unknown_inputs} unknown; a {self.role} prompt per {self.unit} has {sorted(allowed_inputs)}"
            )
        reference_slots = [slot[1] for slot in SLOT.finditer(self.reference or "")]
        if self.reference is not None and (
            CONVERSATION_INPUT not in self.inputs or reference_slots != [REFERENCE_INPUT]
        ):
            raise ValueError("`reference` goes with the input `conversation`, and needs `{{reference}}` once")
        if self.retry_sampling is not None and not self.retry_sampling.model_dump(exclude_none=True):
            raise ValueError("`retry_sampling` changes nothing, so the same request would be sent twice")
        return self


def check_template(file: str, front: FrontMatter, template: str) -> None:
    """Check that the template has the slots that its front matter declares, each in its place.

    Raises:
        PromptError: It has not.
    """
    slot_names = [slot[1] for slot in SLOT.finditer(template)]
    declared = set(front.inputs)
    reserved = {IMAGES_SLOT} if front.modality == "vision" else set()
    if front.criteria is not None:
        reserved.add(CRITERION_SLOT)
    if front.task_types is not None:
        reserved.add(TASK_TYPES_SLOT)
    for name in slot_names:
        if name not in declared | reserved:
            raise PromptError(file, "template", f"{{{{{name}}}}} is not one of {sorted(declared | reserved)}")
    for name in sorted(reserved):
        if slot_names.count(name) != 1:
            raise PromptError(
                file, "template", f"{{{{{name}}}}} must occur exactly once, not {slot_names.count(name)} times"
            )
    lines = template.splitlines()
    if lines.count(FENCE_OPEN) != 1 or lines.count(FENCE_CLOSE) != 1 or lines[0] == FENCE_OPEN:
        raise PromptError(file, "template", f"needs one line {FENCE_OPEN} and one line {FENCE_CLOSE} around the data")
    start, end = lines.index(FENCE_OPEN), lines.index(FENCE_CLOSE)
    fenced_slots = [slot[1] for slot in SLOT.finditer("\n".join(lines[start:end]))]
    if sorted(fenced_slots) != sorted(declared):
        raise PromptError(
            file, "template", f"each of {sorted(declared)} must occur once in the fence, and nothing else"
        )
    leading_slots = [slot[1] for slot in SLOT.finditer("\n".join(lines[:start]))]
    if (declared | {TASK_TYPES_SLOT}) & set(leading_slots):
        raise PromptError(
            file, "template", "data and task types come after the instructions, so that a server can cache these"
        )


def check_bounded_schema(file: str, schema: Mapping[str, Any]) -> int:
    """Return the largest number of characters of an answer under `schema`.

    Constrained decoding is sure to end only if every string and list has an upper bound and no key is free.

    Raises:
        PromptError: The schema is invalid or unbounded.
    """
    import jsonschema  # most commands check no schema, and it takes long to import

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise PromptError(file, "schema", error.message) from error
    return _compute_max_chars(file, schema, "schema")


def _compute_max_chars(file: str, schema: Mapping[str, Any], json_path: str) -> int:
    kind = schema.get("type")
    if "enum" in schema:
        return max(len(str(option)) for option in schema["enum"]) + 2
    if kind == "string":
        if "maxLength" not in schema:
            raise PromptError(file, json_path, "a string needs maxLength")
        return int(schema["maxLength"]) + 2
    if kind == "array":
        if "maxItems" not in schema:
            raise PromptError(file, json_path, "a list needs maxItems")
        return int(schema["maxItems"]) * (_compute_max_chars(file, schema["items"], f"{json_path}.items") + 2) + 2
    if kind == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", [])) != set(properties):
            raise PromptError(
                file, json_path, "an object needs additionalProperties: false and every property required"
            )
        property_chars = (
            len(name) + 5 + _compute_max_chars(file, property_schema, f"{json_path}.{name}")
            for name, property_schema in properties.items()
        )
        return sum(property_chars) + 2
    raise PromptError(file, json_path, f"type {kind!r} is not supported; use object, array, string or enum")
