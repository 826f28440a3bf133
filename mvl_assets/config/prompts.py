"""Prompt files: front matter and template, read strictly and hashed over what decides a request.

The package's are in `prompts/` of the clone, and variants of all of them in subfolders; see `prompt_sets`. A file
`<role>_<family>.md`:

    ---
    role: rewrite                # rewrite | judge | score | probe (`text_only_probe` of a profile)
    family: math                 # the prompt family of a source
    unit: pair                   # one request per question-answer pair, or per sample
    modality: vision             # vision: images go where {{pictures}} is; text: never any image
    no_image_note: The picture ...  # replaces {{pictures}} when the model in use cannot see
    output: text                 # text | json (needs schema) | choice (needs options)
    sampling: {temperature: 0.2, top_p: 0.95, max_tokens: 512}
    retry_sampling: {temperature: 0.8}  # overrides sampling for the one re-ask of an unusable answer
    inputs: [question, answer]
    expected_tokens: 300         # what a usual answer takes, for forecasts; optional
    parameters: {answer_words: {min: 80, max: 250}}  # see `prompt_parameters`; optional
    task_types: {planning: a plan that ...}          # kinds of tasks to draw from; optional
    version: 1
    note: what changed and why
    ---
    The template. {{question}} is replaced by the input of that name; single braces are ordinary text.

Text from data goes between the lines `<sample>` and `</sample>`, every input once, and nothing in it can close that
fence. An input may be repeated outside, as one line of at most 80 characters.
A file with `task_types` has `{{task_types}}` after the fence: as many of these as pairs are asked for at most, drawn by
the sample's id, so that a corpus has all of them in equal parts. `kind: {}` in the schema becomes one of their names.
A judge's file may hold `criteria: {name: wording}`: each becomes a prompt of its own that differs from the others only
where `{{criterion}}` is, at the end, so that a server caches everything before it. `reference` are words that follow
the conversation where the profile says so, with the source's answers in the place of `{{reference}}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.profile import ModelProfile, Profile, load_profile
from mvl_assets.config.project import PACKAGE_DIR
from mvl_assets.config.prompt_front_matter import (
    CONVERSATION_INPUT,
    CRITERION_SLOT,
    FENCE_CLOSE,
    FENCE_OPEN,
    IMAGES_SLOT,
    REFERENCE_INPUT,
    SLOT,
    TASK_TYPES_SLOT,
    FrontMatter,
    OutputKind,
    PromptError,
    PromptRole,
    check_bounded_schema,
    check_template,
)
from mvl_assets.config.prompt_parameters import Growth, PromptParameters, fill_schema
from mvl_assets.config.prompt_sets import list_set_files, list_set_names
from mvl_assets.config.settings import load_settings
from mvl_assets.config.strict_yaml import YamlError, parse_documents
from mvl_assets.errors import MvlError

PROMPTS_DIR = (PACKAGE_DIR / "prompts").resolve()
"""In a clone a link to `prompts/` at the top level, so that a built package has the files too."""
MAX_INLINE_CHARS = 80
_FRONT_MATTER_FENCE = re.compile(r"^---\s*$", re.MULTILINE)
# Parts of a value that could end the fence, or the message (most servers take `<|im_end|>` and similar as tokens).
_FENCE_IN_DATA = re.compile(r"<(\s*/?\s*sample\s*)>", re.IGNORECASE)
_CONTROL_TOKEN = re.compile(r"<\|(.{0,40}?)\|>")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, ready to render.

    `hash` covers everything that decides a first request: template, `no_image_note`, output format, sampling, inputs,
    modality and task types; parameters are part of the template and the schema. It leaves out name and file (renaming
    changes no answer), version and note (words for people), `expected_tokens` (a forecast), `retry_sampling` (the
    sampling in the request's own key tells the second request from the first) and `reference` (it is in the template
    of the prompt that `add_reference` returns).
    """

    name: str
    file: str
    role: PromptRole
    family: str
    unit: Literal["pair", "sample"]
    modality: Literal["vision", "text"]
    no_image_note: str | None
    output: OutputKind
    schema: Mapping[str, Any] | None
    options: tuple[str, ...] | None
    sampling: Mapping[str, float | int]
    retry_sampling: Mapping[str, float | int] | None
    inputs: tuple[str, ...]
    criterion: str | None
    template: str
    version: int
    note: str
    expected_tokens: int | None = None
    parameters: PromptParameters = field(default_factory=PromptParameters)
    task_types: Mapping[str, str] | None = None
    reference: str | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        # "per", "sees" and "blind" were the fields' first names; renaming them here would change every stored hash.
        digest_fields = {
            "per": self.unit,
            "sees": self.modality,
            "blind": self.no_image_note,
            "output": self.output,
            "schema": self.schema,
            "options": self.options,
            "sampling": self.sampling,
            "inputs": self.inputs,
            "template": self.template,
        }
        if self.task_types is not None:
            digest_fields["task_types"] = self.task_types
        object.__setattr__(self, "hash", compute_digest(digest_fields))

    @property
    def file_hash(self) -> str:
        """Digest of what decides a request with or without the source's answers: another one after any such edit."""
        return self.hash if self.reference is None else compute_digest(self.hash, self.reference)

    @property
    def criterion_name(self) -> str:
        """Name in verdicts and keep rules: the criterion, or the prompt's name where a file holds a single prompt."""
        return self.criterion or self.name

    def draw_task_types(self, sample_id: str) -> list[str]:
        """Return the task types of a sample, as many as pairs are asked for at most; none for other prompts."""
        remaining = list(self.task_types or ())
        number = int(compute_digest("task types", sample_id), 16)
        drawn: list[str] = []
        for _ in range(min(len(remaining), self.parameters.pairs.max if self.parameters.pairs else 1)):
            number, index = divmod(number, len(remaining))
            drawn.append(remaining.pop(index))
        return drawn

    def render(self, values: Mapping[str, str], sample_id: str = "") -> tuple[str, str]:
        """Return the text before the images and the text after them (a prompt without images has all in the second).

        Args:
            values: The declared inputs, no more and no fewer. A value is inserted once and never read as a template;
                Tags in it are escaped, see `escape_tags`.
            sample_id: What the task types are drawn by.

        Raises:
            PromptError: An input is missing or unknown.
        """
        missing_inputs, unknown_inputs = set(self.inputs) - set(values), set(values) - set(self.inputs)
        if missing_inputs or unknown_inputs:
            raise PromptError(
                self.file, "inputs", f"missing {sorted(missing_inputs)}, unknown {sorted(unknown_inputs)}"
            )
        before, fenced, after = self._split_at_fence()
        head, _, tail = before.partition(f"{{{{{IMAGES_SLOT}}}}}") if self.modality == "vision" else ("", "", before)
        inline_values = {name: format_inline(value) for name, value in values.items()}
        fenced_text = _fill_slots(fenced, {name: escape_tags(value) for name, value in values.items()})
        if self.task_types is not None:
            drawn = (f"- {name}: {self.task_types[name]}" for name in self.draw_task_types(sample_id))
            inline_values[TASK_TYPES_SLOT] = "\n".join(drawn)
        return _fill_slots(
            head, inline_values
        ).strip(), f"{_fill_slots(tail, inline_values)}{fenced_text}{_fill_slots(after, inline_values)}".strip()

    def _split_at_fence(self) -> tuple[str, str, str]:
        """Return the template before, in and after the fence."""
        start = self.template.index(f"\n{FENCE_OPEN}\n") + 1
        end = self.template.index(f"\n{FENCE_CLOSE}\n", start) + 1
        return self.template[:start], self.template[start:end], self.template[end:]


def _fill_slots(text: str, values: Mapping[str, str]) -> str:
    """Fill all slots in one pass, so that a value is never read as a template."""
    return SLOT.sub(lambda slot: values[slot[1]], text)


def escape_tags(value: str) -> str:
    """Return the value with square brackets where angle brackets could be read as the fence or as a control token."""
    return _CONTROL_TOKEN.sub(r"[|\1|]", _FENCE_IN_DATA.sub(r"[\1]", value))


def format_inline(value: str) -> str:
    """Return the value for use outside the fence: escaped, on one line, at most `MAX_INLINE_CHARS` characters."""
    line = " ".join(escape_tags(value).split())
    return line if len(line) <= MAX_INLINE_CHARS else f"{line[: MAX_INLINE_CHARS - 1]}…"


def list_families() -> list[str]:
    """Return the families that have a rewriting prompt in any set, without reading the files."""
    own_dir = load_settings().prompts_dir
    set_names = [None, *list_set_names(PROMPTS_DIR, own_dir)]
    file_names = {path.name for name in set_names for path in list_set_files(PROMPTS_DIR, own_dir, name).values()}
    return sorted(
        name.removeprefix("rewrite_").removesuffix(".md") for name in file_names if name.startswith("rewrite_")
    )


def load_prompts(prompts_dir: Path | None = None, profile: Profile | None = None) -> dict[str, Prompt]:
    """Return every prompt by name.

    Args:
        prompts_dir: Read this folder alone; None reads the package's prompts with the project's own over them.
        profile: Names the set of prompts; None takes the profile of the settings. Not used with `prompts_dir`.

    Raises:
        MvlError: The folder has no prompt files, or there is no such set.
        PromptError: A file is broken; the first one is named.
    """
    named_dir = os.environ.get("MVL_PROMPTS") if prompts_dir is None else prompts_dir
    if named_dir is not None and not any(chain(Path(named_dir).glob("*.md"), Path(named_dir).glob("*/*.md"))):
        raise MvlError(f"no prompt files in {named_dir}", hint="set MVL_PROMPTS to a folder of prompt files")
    if prompts_dir is not None:
        files, changes = list_set_files(prompts_dir, None, None), {}
    else:
        profile = profile or load_profile(load_settings().profile)
        files = _list_profile_files(profile)
        changes = {family: parameters.model_dump_json() for family, parameters in profile.prompt_parameters.items()}
    stamps = [(name, path, path.stat().st_mtime_ns, path.stat().st_size) for name, path in sorted(files.items())]
    return dict(_load_prompt_files(tuple(stamps), tuple(sorted(changes.items()))))


def _list_profile_files(profile: Profile) -> dict[str, Path]:
    """Return the files of the profile's set, with the rewriting prompts of families that take another set's."""
    own_dir = load_settings().prompts_dir
    files = list_set_files(PROMPTS_DIR, own_dir, profile.prompts)
    for family, rewriter in profile.rewriters.items():
        set_files = list_set_files(PROMPTS_DIR, own_dir, rewriter.prompts or profile.prompts)
        file_name = f"rewrite_{family}.md"
        family_files = {name: path for name, path in set_files.items() if path.name == file_name}
        if not family_files:
            families = list_families()
            raise MvlError(
                f"rewriters of the profile: no rewriting prompt for the family {family!r}",
                hint=f"{format_suggestion(family, families)}families with one: {', '.join(families)}",
            )
        files = {name: path for name, path in files.items() if path.name != file_name} | family_files
    return files


@lru_cache(maxsize=8)
def _load_prompt_files(
    files: tuple[tuple[str, Path, int, int], ...], changes: tuple[tuple[str, str], ...]
) -> dict[str, Prompt]:
    """Read the files; cached by their times and sizes, so that an edit is seen and nothing is read twice.

    Args:
        files: Name, path, time and size of each.
        changes: Changed parameters as JSON, by family of rewriting prompts.
    """
    remaining = {f"rewrite_{family}": PromptParameters.model_validate_json(text) for family, text in changes}
    prompts: dict[str, Prompt] = {}
    for name, path, _, _ in files:
        prompts.update((prompt.name, prompt) for prompt in load_prompt_file(path, name, remaining.pop(path.stem, None)))
    if remaining:
        family = next(iter(remaining)).removeprefix("rewrite_")
        families = sorted(prompt.family for prompt in prompts.values() if prompt.role == "rewrite")
        raise MvlError(
            f"prompt_parameters of the profile: no rewriting prompt for the family {family!r}",
            hint=f"{format_suggestion(family, families)}families with one: {', '.join(families)}",
        )
    return prompts


def load_prompt_file(
    path: Path, file: str | None = None, changes: PromptParameters | None = None, *, any_name: bool = False
) -> list[Prompt]:
    """Return the prompts of one file: one, or one per criterion.

    Args:
        path: The file.
        file: What messages call it; None takes its name.
        changes: Parameters that a profile changes.
        any_name: Take it whatever its name is; elsewhere the name has to be that of its role and family.

    Raises:
        PromptError: The file is broken.
    """
    file = file or path.name
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(file, "text", f"byte {error.start} is not UTF-8") from error
    fences = list(islice(_FRONT_MATTER_FENCE.finditer(text), 2))
    if len(fences) != 2 or text[: fences[0].start()].strip():
        raise PromptError(file, "front matter", "the file must begin with a block between two `---` lines")
    start, end = fences[0].end(), fences[1].start()
    try:
        (document,) = parse_documents(text[start:end], file, line_offset=text.count("\n", 0, start))
        front = document.validate(FrontMatter)
    except YamlError as error:
        raise PromptError(file, error.key or "front matter", error.problem, line=error.line) from error
    except ValueError as error:
        raise PromptError(file, "front matter", "must be one YAML mapping") from error
    prompt_name = f"{front.role}_{front.family}"
    if path.stem != prompt_name and not any_name:
        raise PromptError(file, "role, family", f"the file must be named {prompt_name}.md")
    try:
        parameters = front.parameters if changes is None else front.parameters.replace(changes)
    except ValueError as error:
        raise PromptError(file, "prompt_parameters of the profile", str(error)) from error
    try:
        template = parameters.fill_template(text[fences[1].end() :].strip() + "\n")
        growth = Growth.compare(parameters, front.parameters)
        front = _apply_parameters(front, parameters, growth)
    except ValueError as error:
        raise PromptError(file, "parameters", str(error)) from error
    check_template(file, front, template)
    if front.json_schema is not None:
        check_bounded_schema(file, front.json_schema)
    if front.criteria is None:
        return [_build_prompt(file, front, prompt_name, None, template)]
    # Criterion names become asset keys and the templates must not gain slots from the wording.
    return [
        _build_prompt(file, front, f"{prompt_name}_{name}", name, _insert_criterion(file, template, name, wording))
        for name, wording in front.criteria.items()
    ]


def get_rewrite_prompt(prompts: Mapping[str, Prompt], family: str) -> Prompt:
    """Return the rewriting prompt of a family. Raises `MvlError` if there is none: the source entry is wrong."""
    prompt = prompts.get(f"rewrite_{family}")
    if prompt is None:
        families = sorted(p.family for p in prompts.values() if p.role == "rewrite")
        set_name = next((p.file.rpartition("/")[0] for p in prompts.values() if p.role == "rewrite"), "")
        raise MvlError(
            f"no rewriting prompt for the family {family!r}" + (f" in the set {set_name!r}" if set_name else ""),
            hint=f"{format_suggestion(family, families)}families with one: {', '.join(families)}",
        )
    return prompt


def get_judge_prompts(prompts: Mapping[str, Prompt], family: str, *, reference: bool = False) -> list[Prompt]:
    """Return one prompt per criterion, from `judge_<family>.md` if it exists, else from `judge_general.md`.

    Args:
        prompts: The prompts by name.
        family: The family of what is judged.
        reference: Whether the judge gets the source's answers, where the file says how.

    Raises:
        MvlError: There are neither.
    """
    for candidate_family in (family, "general"):
        criteria = [p for p in prompts.values() if p.role == "judge" and p.family == candidate_family]
        if criteria:
            return [add_reference(criterion) for criterion in criteria] if reference else criteria
    raise MvlError("no judging prompt", hint="the folder of prompts needs a judge_general.md")


def add_reference(prompt: Prompt) -> Prompt:
    """Return the prompt with the input `reference` after the conversation; unchanged if its file has none."""
    if prompt.reference is None or REFERENCE_INPUT in prompt.inputs:
        return prompt
    slot = f"{{{{{CONVERSATION_INPUT}}}}}"
    template = prompt.template.replace(slot, f"{slot}\n\n{prompt.reference.strip()}")
    return replace(prompt, template=template, inputs=(*prompt.inputs, REFERENCE_INPUT))


def get_score_prompt(prompts: Mapping[str, Prompt], family: str) -> Prompt:
    """Return the prompt that scores a family: `score_<family>.md` if it exists, else `score_general.md`.

    Raises:
        MvlError: There are neither.
    """
    prompt = prompts.get(f"score_{family}") or prompts.get("score_general")
    if prompt is None:
        raise MvlError("no prompt for scores", hint="the set of prompts needs a score_general.md, or `score_rows: 0`")
    return prompt


def get_probe_prompt(prompts: Mapping[str, Prompt]) -> Prompt:
    """Return the prompt that asks a question without its picture. Raises `MvlError` if there is none."""
    prompt = prompts.get("probe_text_only")
    if prompt is None:
        raise MvlError(
            "no prompt for `text_only_probe`",
            hint="the set of prompts needs a probe_text_only.md; the default set has one",
        )
    return prompt


def list_expected_tokens(prompts: Sequence[Prompt]) -> dict[str, int]:
    """Return the tokens of a usual answer by prompt, of those that say so."""
    return {prompt.name: prompt.expected_tokens for prompt in prompts if prompt.expected_tokens is not None}


def compute_criteria_hash(criteria: Sequence[Prompt]) -> str:
    """Return one hash over the prompts that judge a row together."""
    return compute_digest(*(p.hash for p in criteria))


def compute_judging_hash(criteria: Sequence[Prompt], probe: Prompt | None, prober: ModelProfile | None) -> str:
    """Return one hash over all that is asked about a row: the criteria and, where there is one, the probe."""
    criteria_hash = compute_criteria_hash(criteria)
    if probe is None or prober is None:
        return criteria_hash
    return compute_digest(criteria_hash, probe.hash, prober.name, prober.revision)


def _apply_parameters(front: FrontMatter, parameters: PromptParameters, growth: Growth) -> FrontMatter:
    """Return the front matter with other parameters, and with the schema and the limits that go with them."""
    changes: dict[str, Any] = {"parameters": parameters}
    if front.json_schema is not None:
        changes["json_schema"] = fill_schema(front.json_schema, parameters, front.task_types, growth)
    elif parameters.pairs is not None:
        raise ValueError("`pairs` goes with a schema")
    if growth != Growth():
        for name in ("sampling", "retry_sampling"):
            sampling = getattr(front, name)
            if sampling is not None and sampling.max_tokens is not None:
                max_tokens = growth.compute_limit(sampling.max_tokens)
                changes[name] = sampling.model_copy(update={"max_tokens": max_tokens})
        if front.expected_tokens is not None:
            changes["expected_tokens"] = max(1, round(front.expected_tokens * growth.expected))
    return front.model_copy(update=changes)


def _insert_criterion(file: str, template: str, name: str, wording: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PromptError(file, f"criteria.{name}", "a criterion's name is made of a-z, 0-9 and _")
    if SLOT.search(wording):
        raise PromptError(file, f"criteria.{name}", "a criterion's wording cannot have inputs of its own")
    return SLOT.sub(lambda slot: wording.strip() if slot[1] == CRITERION_SLOT else slot[0], template)


def _build_prompt(file: str, front: FrontMatter, name: str, criterion: str | None, template: str) -> Prompt:
    sampling = front.sampling.model_dump(exclude_none=True)
    retry_sampling = front.retry_sampling.model_dump(exclude_none=True) if front.retry_sampling else None
    if retry_sampling is not None and {**sampling, **retry_sampling} == sampling:
        raise PromptError(file, "retry_sampling", "equals sampling, so the same request would be sent twice")
    return Prompt(
        name=name,
        file=file,
        role=front.role,
        family=front.family,
        unit=front.unit,
        modality=front.modality,
        no_image_note=front.no_image_note.strip() if front.no_image_note else None,
        output=front.output,
        schema=front.json_schema,
        options=front.options,
        sampling=sampling,
        retry_sampling=None if retry_sampling is None else {**sampling, **retry_sampling},
        inputs=front.inputs,
        criterion=criterion,
        template=template,
        version=front.version,
        note=front.note,
        expected_tokens=front.expected_tokens,
        parameters=front.parameters,
        task_types=front.task_types,
        reference=front.reference,
    )
