"""Parameters of prompts and the task types that are drawn: what they change, and what a wrong one is told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompt_front_matter import PromptError
from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.prompts import Prompt, load_prompt_file, load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.inference.request import ModelRef
from mvl_assets.rewriting.build import build_requests
from tests.rewriting.small_source import profile

FILE = """---
role: rewrite
family: notes
unit: sample
modality: text
output: json
schema:
  type: object
  additionalProperties: false
  required: [pairs]
  properties:
    pairs:
      type: array
      items:
        type: object
        additionalProperties: false
        required: [kind, question, answer]
        properties:
          kind: {}
          question: {type: string, maxLength: 1000}
          answer: {type: string, maxLength: 4000}
parameters:
  pairs: {min: 2, max: 3}
  answer_words: {min: 50, max: 150}
  style: plain
task_types: {planning: make a plan, math: calculate, reasoning: conclude, advice: recommend, editing: correct}
sampling: {temperature: 0.5, top_p: 1.0, max_tokens: 3000}
retry_sampling: {temperature: 0.7, max_tokens: 3500}
inputs: [pairs]
expected_tokens: 800
version: 1
note: for a test
---
Write {{parameters.pairs}} tasks of {{parameters.answer_words}} words, {{parameters.style}}.
<sample>
{{pairs}}
</sample>
The task types:
{{task_types}}
Write.
"""
TURNS = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "3"}]


def write(folder: Path, text: str = FILE) -> Path:
    path = folder / "rewrite_notes.md"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, **changes: Any) -> Prompt:
    (prompt,) = load_prompt_file(write(folder), changes=PromptParameters.model_validate(changes))
    return prompt


def build_request_key(prompt: Prompt, sample_id: str = "s") -> str:
    sample = {"sample_id": sample_id, "conversations": TURNS, "image_ids": []}
    (built,) = build_requests(sample, prompt, ModelRef("fake", "1"))
    return built.request.key


def test_parameters_are_part_of_text_schema_and_key(tmp_path: Path) -> None:
    own = load(tmp_path)
    assert "Write 2 to 3 tasks of 50 to 150 words, plain." in own.template
    pairs = own.schema["properties"]["pairs"]
    assert (pairs["minItems"], pairs["maxItems"]) == (2, 3)
    assert pairs["items"]["properties"]["kind"] == {"enum": ["planning", "math", "reasoning", "advice", "editing"]}
    changes: list[dict[str, Any]] = [
        {"pairs": {"min": 4, "max": 4}},
        {"answer_words": {"min": 50, "max": 200}},
        {"style": "solemn"},
    ]
    changed = [load(tmp_path, **change) for change in changes]
    assert "Write 4 tasks" in changed[0].template and "50 to 200 words" in changed[1].template
    assert "solemn" in changed[2].template
    assert len({prompt.hash for prompt in (own, *changed)}) == 4
    assert len({build_request_key(prompt) for prompt in (own, *changed)}) == 4
    assert load(tmp_path, style="plain").hash == own.hash


def test_limits_grow_with_what_is_asked_for_and_never_shrink(tmp_path: Path) -> None:
    more = load(tmp_path, pairs={"min": 6, "max": 6}, answer_words={"min": 100, "max": 300})
    assert more.sampling["max_tokens"] == 3000 * 2 * 2
    assert more.retry_sampling is not None and more.retry_sampling["max_tokens"] == 3500 * 2 * 2
    assert more.expected_tokens == 800 * 2 * 6 / 2.5
    assert more.schema["properties"]["pairs"]["items"]["properties"]["answer"]["maxLength"] == 8000
    fewer = load(tmp_path, pairs={"min": 1, "max": 1}, answer_words={"min": 10, "max": 20})
    assert fewer.sampling == load(tmp_path).sampling
    assert fewer.expected_tokens is not None and fewer.expected_tokens < 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  style: plain\n", "  style: plain\n  tone: dry\n", "tone"),
        ("  style: plain\n", "  style: plain\n  reasoning_steps: {min: 1, max: 2}\n", "'reasoning_steps' is not used"),
        ("  style: plain\n", "", r"\{\{parameters.style\}\} is none of"),
        ("      type: array\n", "      type: array\n      maxItems: 3\n", "gives the bounds of `pairs`"),
        ("{min: 2, max: 3}", "{min: 3, max: 2}", "min 3 is above max 2"),
        ("{{task_types}}\n", "", "must occur exactly once"),
        ("Write {{p", "{{task_types}} Write {{p", "must occur exactly once, not 2 times"),
    ],
)
def test_a_wrong_parameter_of_a_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(PromptError, match=message):
        load_prompt_file(write(tmp_path, FILE.replace(old, new, 1)))


def test_a_profile_changes_parameters_by_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_PROMPTS", str(tmp_path))
    write(tmp_path)

    def load_changed(changes: dict[str, Any]) -> Prompt:
        fields = profile().model_dump() | {"prompts": None, "prompt_parameters": changes}
        return load_prompts(profile=Profile.model_validate(fields))["rewrite_notes"]

    assert "solemn" in load_changed({"notes": {"style": "solemn"}}).template
    assert load_changed({}).hash == load(tmp_path).hash
    with pytest.raises(PromptError, match=r"no parameter reasoning_steps; it has pairs, answer_words, style"):
        load_changed({"notes": {"reasoning_steps": {"min": 1, "max": 2}}})
    with pytest.raises(MvlError, match="no rewriting prompt for the family 'note'") as caught:
        load_changed({"note": {}})
    assert (caught.value.hint or "").startswith("did you mean `notes`?")
    for wrong in ({"words": 3}, {"pairs": {"min": 0, "max": 2}}, {"style": "a\nb"}, {"style": "{{pairs}}"}):
        with pytest.raises(ValidationError):
            load_changed({"notes": wrong})


def test_task_types_are_drawn_by_sample_in_equal_parts(tmp_path: Path) -> None:
    prompt = load(tmp_path)
    drawn = [prompt.draw_task_types(f"sample-{number}") for number in range(5000)]
    assert all(len(set(names)) == 3 for names in drawn)
    firsts, alls = Counter(names[0] for names in drawn), Counter(name for names in drawn for name in names)
    for counts, share in ((firsts, 1 / 5), (alls, 3 / 5)):
        assert set(counts) == set(prompt.task_types or ())
        assert all(abs(n / len(drawn) - share) < 0.03 for n in counts.values())
    assert drawn[:3] == [load(tmp_path).draw_task_types(f"sample-{number}") for number in range(3)]


def test_the_drawn_task_types_are_in_the_request(tmp_path: Path) -> None:
    prompt = load(tmp_path)
    names = prompt.draw_task_types("s")
    text = prompt.render({"pairs": "x"}, "s")[1]
    listed = text.split("The task types:\n")[1].splitlines()[:3]
    assert listed == [f"- {name}: {prompt.task_types[name]}" for name in names]
    other = next(f"t{n}" for n in range(99) if prompt.draw_task_types(f"t{n}") != names)
    assert build_request_key(prompt, other) != build_request_key(prompt)
    assert json.dumps(prompt.schema) == json.dumps(load(tmp_path).schema)
