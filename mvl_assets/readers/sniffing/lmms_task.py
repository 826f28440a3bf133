"""Proposes the entry of a benchmark's items from the file of its lmms-eval task.

The task says where its data are (`dataset_path`, `dataset_name`, `test_split`), and which fields it asks: by name, in a
template, or in functions of a module beside it, which is read and never run.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.errors import MvlError
from mvl_assets.readers.sniffing.fields import ANSWER_NAMES, ID_NAMES, QUESTION_NAMES, normalize

MAX_INCLUDES = 8
_TEMPLATE_FIELD = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)[^{}]*\}\}")
_OPTION_WORDS = ("option", "choice")


@dataclass(slots=True)
class TaskProposal:
    """The entry of a benchmark, and what a person should check."""

    attributes: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def format_yaml(self) -> str:
        """Return the entry as a YAML document."""
        return yaml.safe_dump(self.attributes, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


class _TaskLoader(yaml.SafeLoader):
    """Reads `!function module.name` as the text `module.name`."""


_TaskLoader.add_constructor("!function", lambda loader, node: _Function(str(loader.construct_scalar(node))))  # type: ignore[arg-type]


class _Function(str):
    """The name of a function in a module beside the task's file."""


def sniff_task(task_file: Path) -> TaskProposal:
    """Return the entry of the items that a task of lmms-eval asks.

    Raises:
        MvlError: The file is no task, or it does not say where its data are.
    """
    task = _read_task(task_file)
    name, repo = task.get("task"), task.get("dataset_path")
    if not isinstance(name, str) or not isinstance(repo, str):
        raise MvlError(
            f"{task_file} names no task or no data set",
            hint="give the file of one task, with `task` and `dataset_path`; a group's file only lists tasks",
        )
    split = str(task.get("test_split") or task.get("validation_split") or "test")
    folder = str(task.get("dataset_name") or "data")
    text_fields, target_fields, image_fields = (
        _list_fields(task.get(key), task_file) for key in ("doc_to_text", "doc_to_target", "doc_to_visual")
    )
    notes = ["names of files and fields are inferred from the task: `mvl sources lock --benchmarks` shows the files"]
    options = [name for name in text_fields if any(word in name.lower() for word in _OPTION_WORDS)]
    others = [name for name in text_fields if name not in options and normalize(name) not in ID_NAMES]
    question = next((name for name in others if normalize(name) in QUESTION_NAMES), None) or next(iter(others), None)
    answer = next((name for name in target_fields if normalize(name) in ANSWER_NAMES), None)
    answer = answer or next(iter(target_fields), None)
    if question is None:
        notes.append("no field of the question is known: write it into `records.question`")
    if answer is None:
        notes.append("no field of the answer is known: write it into `records.answer`")
    question_text = "\n".join(f"{{{name}}}" for name in [question or "question", *options])
    images = [name for name in image_fields if "video" not in name.lower()]
    records: dict[str, Any] = {
        "files": "**/*.parquet",
        "shape": "parquet",
        "question": question_text,
        "answer": f"{{{answer or 'answer'}}}",
    }
    if images:
        records["image_field"] = images[0] if len(images) == 1 else images
    else:
        notes.append(
            "no field of images is known: add `image_field`, or leave it out where only questions are compared"
        )
    slug = BENCHMARK_PREFIX + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    attributes = {
        "slug": slug,
        "title": name,
        "modality": "multi_image" if len(images) > 1 else "single_image" if images else "text",
        "format": "records",
        "hub": {"repo": repo, "files": [f"{folder}/{split}-*.parquet"]},
        "records": records,
        "tasks": {name: "*"},
    }
    if "/" not in repo:
        del attributes["hub"]
        notes.append(f"its data are files ({repo}): name their folder with --files")
    return TaskProposal(attributes, notes)


def _read_task(task_file: Path, depth: int = 0) -> dict[str, Any]:
    """Return the keys of a task, those of the files that it includes beneath its own."""
    try:
        document = yaml.load(task_file.read_text(encoding="utf-8"), _TaskLoader)  # noqa: S506  # a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise MvlError(f"{task_file} cannot be read as a task: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise MvlError(f"{task_file} is no task of lmms-eval", hint="a task is a YAML mapping")
    included = document.get("include")
    if isinstance(included, str) and depth < MAX_INCLUDES:
        return _read_task(task_file.parent / included, depth + 1) | document
    return document


def _list_fields(value: Any, task_file: Path) -> list[str]:
    """Return the fields that a key of a task reads: a name, those of a template, or those that a function reads."""
    if isinstance(value, _Function):
        return _list_function_fields(value, task_file)
    if not isinstance(value, str):
        return []
    return list(dict.fromkeys(_TEMPLATE_FIELD.findall(value))) or ([value] if value.isidentifier() else [])


def _list_function_fields(function: str, task_file: Path) -> list[str]:
    """Return what a function reads of its first parameter: `doc["question"]`, `doc.get("question")`."""
    module, _, name = function.rpartition(".")
    try:
        tree = ast.parse((task_file.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return []
    definition = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if definition is None or not definition.args.args:
        return []
    row = definition.args.args[0].arg
    reads = sorted(
        (node.lineno, node.col_offset, key)
        for node in ast.walk(definition)
        if isinstance(node, ast.Subscript | ast.Call) and (key := _get_key(node, row)) is not None
    )
    return list(dict.fromkeys(key for _, _, key in reads))


def _get_key(node: ast.Subscript | ast.Call, row: str) -> str | None:
    """Return the field that an expression reads of the row, if it does."""
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        owner, key = node.func.value, node.args[0]
    else:
        return None
    is_field = isinstance(owner, ast.Name) and owner.id == row and isinstance(key, ast.Constant)
    return key.value if is_field and isinstance(key, ast.Constant) and isinstance(key.value, str) else None
