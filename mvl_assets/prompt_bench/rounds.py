"""Remembers which prompt a source was tried with last, so that the next round shows what became of it.

A round is a prompt and a model. Its answers are in the lake alone, where a purge finds them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.prompts import Prompt

MAX_ROUNDS = 2
"""The one that is being asked, and the one before."""
_NOT_IN_TEXT = ("name", "file", "role", "family", "template", "version", "note", "hash")

TriedStage = Literal["rewrite", "judge"]


def build_page_path(home: Path, stage: TriedStage, source: str) -> Path:
    """Return where the page of a source is written unless a file is named."""
    return home / "try" / f"{stage}-{source}.html"


def list_pages(home: Path, source: str) -> list[Path]:
    """Return the pages of a source: they hold its texts and images, which a purge removes."""
    pages = [build_page_path(home, stage, source) for stage in get_args(TriedStage)]
    return [page for page in pages if page.exists()]


@dataclass(frozen=True, slots=True)
class Round:
    """One prompt, or the criteria of one judge, and the model of the profile that is asked."""

    prompts: tuple[Prompt, ...]
    model: str

    @property
    def identity(self) -> str:
        """Equal for rounds that send the same."""
        return compute_digest(self.model, *(prompt.hash for prompt in self.prompts))

    @property
    def prompts_by_name(self) -> dict[str, Prompt]:
        """The prompts as stages take them."""
        return {prompt.name: prompt for prompt in self.prompts}


class RoundFile:
    """The last rounds of a source, in a file of the home.

    Args:
        home: The home.
        stage: What is tried.
        source: Slug of the source.
    """

    def __init__(self, home: Path, stage: TriedStage, source: str) -> None:
        self._path = home / "try" / f"{stage}-{source}.json"

    def record(self, round_: Round) -> Round | None:
        """Record a round as the last one, and return the last one that sent something else; None if there is none."""
        others = [stored for stored in self._read() if stored.identity != round_.identity]
        kept = [*others, round_][-MAX_ROUNDS:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entries = [{"prompts": list(map(_encode_prompt, stored.prompts)), "model": stored.model} for stored in kept]
        write_text_atomic(self._path, json.dumps(entries, ensure_ascii=False))
        return others[-1] if others else None

    def _read(self) -> list[Round]:
        """Return the rounds, the last one at the end; those that another version of the program wrote are left out."""
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return [
                Round(tuple(map(_read_prompt, entry["prompts"])), entry["model"])
                for entry in stored
                if all(_read_prompt(prompt).hash == prompt["hash"] for prompt in entry["prompts"])
            ]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return []


def _read_prompt(entry: Mapping[str, Any]) -> Prompt:
    values: dict[str, Any] = {field.name: entry[field.name] for field in fields(Prompt) if field.init}
    tuples = {name: tuple(values[name]) for name in ("inputs", "options") if values[name] is not None}
    return Prompt(**values | tuples | {"parameters": PromptParameters.model_validate(values["parameters"])})


def _encode_prompt(prompt: Prompt) -> dict[str, Any]:
    values = {field.name: getattr(prompt, field.name) for field in fields(Prompt)}
    return values | {"parameters": prompt.parameters.model_dump(mode="json")}


def compare_prompts(before: Sequence[Prompt], after: Sequence[Prompt]) -> str:
    """Return the differences between the prompts of two rounds as a unified diff; empty if there are none."""
    old_lines, new_lines = format_prompts(before).splitlines(), format_prompts(after).splitlines()
    return "\n".join(difflib.unified_diff(old_lines, new_lines, "previous round", "this round", lineterm="", n=2))


def format_prompts(prompts: Sequence[Prompt]) -> str:
    """Return what decides the requests of some prompts as text."""
    texts = []
    for prompt in prompts:
        # Through JSON: YAML would write tuples as objects of Python.
        values = json.loads(json.dumps(_encode_prompt(prompt)))
        settings = {name: value for name, value in values.items() if name not in _NOT_IN_TEXT and value}
        text = yaml.safe_dump(settings, sort_keys=True, allow_unicode=True)
        texts.append(f"# {prompt.name}\n{text}---\n{prompt.template}")
    return "\n".join(texts)
