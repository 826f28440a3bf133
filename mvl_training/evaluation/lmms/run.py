"""Runs lmms-eval on tasks and leaves its results as files: `python -m mvl_training.evaluation.lmms.run JOB.json`.

The job is JSON: `model` (a name of `adapters`), `model_args`, `tasks`, `include` (a folder of task files that stands in
place of lmms-eval's own, or null), `limit` (questions a task, or null), `cwd` (where the data of local tasks lies, or
null), `env` (variables set before lmms-eval is imported), `out` (a folder).

Leaves in `out`: `samples.jsonl`, one line per question and filter, `compute_single_question_scores` saying what each aggregate makes of that
question by itself; then `results.json`, so that results are never without their samples; or `error.json` {"message",
"hint"} and exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import io
import json
import os
import re
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_training.evaluation.lmms.errors import LmmsError

SEED = 20241206
N_RESAMPLES = 200
"""Bootstrap repetitions for aggregates without a formula: the error of a standard error of 200 is 5 %."""

_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class TaskError(LmmsError):
    """A task cannot be run here."""


def run_tasks(job: Mapping[str, Any], out: Path) -> None:
    """Raises `Fault`."""
    # Before the first import of lmms_eval, which imports torchvision.
    patch_cpu_torch()
    from lmms_eval import evaluator
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    from mvl_training.evaluation.lmms.adapters import build_manifests

    for manifest in build_manifests():
        MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    include_path = job["include"]
    task_manager = TaskManager("WARNING", include_path=include_path, include_defaults=include_path is None)
    if unknown := [task for task in job["tasks"] if task not in task_manager.all_tasks]:
        raise TaskError(f"lmms-eval has no task {', '.join(unknown)}", "see `lmms-eval tasks list`")
    # The data first: what cannot be fetched must not cost the loading of a model.
    tasks = [task for name in job["tasks"] for task in _iter_tasks(_load_task(task_manager, name))]
    model = MODEL_REGISTRY_V2.get_model_class(job["model"])(**job["model_args"])
    with _convert_exit_to_error():
        results = evaluator.simple_evaluate(
            model=model,
            tasks=tasks,
            task_manager=task_manager,
            limit=job["limit"],
            log_samples=True,
            # Tasks for submission write their files below it.
            cli_args=argparse.Namespace(output_path=str(out), process_with_media=True, log_samples=True),
        )
    model.close()
    samples = results.pop("samples")
    tasks_by_name = {task.config.task: task for task in tasks}
    with (out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for name, task_samples in samples.items():
            for sample in task_samples:
                question_fields = {
                    "question_id": model.asked[name, sample["doc_id"]],
                    "alone": compute_single_question_scores(tasks_by_name[name], sample),
                }
                row = {"task": name, **question_fields, **sample}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    copied_keys = ("results", "versions", "n-samples", "higher_is_better", "configs")
    report = {name: results[name] for name in copied_keys}
    report["lmms_eval_version"] = metadata.version("lmms_eval")
    report["task_hashes"] = {task.config.task: compute_task_hash(task) for task in tasks}
    report["counted"] = {task: count_questions(listed) for task, listed in samples.items()}
    report["bootstrap"] = {task.config.task: _bootstrap_stderrs(task, samples[task.config.task]) for task in tasks}
    temp_file = out / "results.json.part"
    temp_file.write_text(json.dumps(report, ensure_ascii=False, default=str, indent=1), encoding="utf-8")
    temp_file.replace(out / "results.json")


def _load_task(task_manager: Any, name: str) -> dict[str, Any]:
    """The task (or group of tasks) with its data. Raises `TaskError` in one line when that cannot be had."""
    from lmms_eval.tasks import get_task_dict

    try:
        loaded: dict[str, Any] = get_task_dict([name], task_manager, "chat")
    except Exception as error:
        root_cause = _find_root_cause(error)
        cause_text = " ".join(f"{type(root_cause).__name__}: {root_cause}".split())[:300]
        dataset_path = _resolve_dataset_path(task_manager, name)
        raise TaskError(
            f"{name} cannot be loaded, nor its data from {dataset_path}: {cause_text}",
            "where the hub can be reached, unset HF_HUB_OFFLINE and set HF_TOKEN (most tasks want one, for public data"
            f" too); else download elsewhere (`hf download --repo-type dataset {dataset_path}`) and set HF_HOME to that cache",
        ) from error
    return loaded


def _find_root_cause(error: BaseException) -> BaseException:
    """What lies at the bottom of an error; tenacity hides the last attempt's in one of its own."""
    while True:
        attempt = getattr(error, "last_attempt", None)
        cause = error.__cause__ if attempt is None else attempt.exception()
        if cause is None:
            return error
        error = cause


def _resolve_dataset_path(task_manager: Any, name: str) -> str:
    from lmms_eval.utils import load_yaml_config

    return str(load_yaml_config(task_manager.task_index[name]["yaml_path"], mode="full").get("dataset_path", "the hub"))


def _iter_tasks(loaded: Mapping[Any, Any]) -> Iterator[Any]:
    """The leaves of lmms-eval's tree of groups and tasks."""
    for value in loaded.values():
        if isinstance(value, dict):
            yield from _iter_tasks(value)
        else:
            yield value


@contextlib.contextmanager
def _convert_exit_to_error() -> Iterator[None]:
    """Some tasks end the whole process when a film is missing."""
    try:
        yield
    except SystemExit as error:
        raise TaskError(
            f"a task gave up: {error.code}", "its films are not complete: delete its folder below HF_HOME and run again"
        ) from error


def compute_task_hash(task: Any) -> str:
    """Digest of what scores depend on besides the data and the model: the task's settings and the code it names."""
    hasher = hashlib.blake2b(digest_size=16)
    settings = json.dumps(task.dump_config(), sort_keys=True, default=str)
    hasher.update(_MEMORY_ADDRESS.sub("", settings).encode())
    for file in sorted({inspect.getsourcefile(f) or "" for f in _iter_functions(task)}):
        hasher.update(Path(file).read_bytes() if file else b"")
    return hasher.hexdigest()


def _iter_functions(task: Any) -> Iterator[Callable[..., Any]]:
    values = [getattr(task.config, name) for name in vars(task.config)]
    for metric in task.config.metric_list or []:
        values += metric.values()
    for value in values:
        if inspect.isfunction(value):
            yield value


def count_questions(samples: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many questions have each of the numbers and records in their lines. A question has a line per filter."""
    doc_ids_by_field: dict[str, set[int]] = {}
    for sample in samples:
        for name in sample:
            doc_ids_by_field.setdefault(name, set()).add(sample["doc_id"])
    return {name: len(doc_ids) for name, doc_ids in doc_ids_by_field.items()}


def compute_single_question_scores(task: Any, sample: Mapping[str, Any]) -> dict[str, float]:
    """What the task's aggregates make of this question by itself, for metrics whose lines hold a record.

    So a record in a form of the task's own, such as MMMU's candidates for an open answer, is scored by the code it is
    meant for. What no aggregate can make a number of is left out.
    """
    scores: dict[str, float] = {}
    for metric, aggregate in _iter_aggregations(task):
        if isinstance(sample.get(metric), dict):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
                scores[metric] = float(aggregate([sample[metric]]))
    return scores


def _iter_aggregations(task: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """By metric. Those that write files (they take `args`) are left out."""
    for metric, aggregate in task.aggregation().items():
        if "args" not in inspect.signature(aggregate).parameters:
            yield metric, aggregate


def _bootstrap_stderrs(task: Any, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The standard error of each metric whose aggregate has no formula, by resampling questions.

    lmms-eval leaves those without one, most of the paper's among them.
    """
    import numpy as np

    rng = np.random.default_rng(SEED)
    stderrs: dict[str, float] = {}
    for metric, aggregate in _iter_aggregations(task):
        items = [sample[metric] for sample in samples if metric in sample]
        if len(items) < 2 or not isinstance(items[0], dict):
            continue
        resampled_scores: list[float] = []
        for _ in range(N_RESAMPLES):
            resample = [items[i] for i in rng.integers(0, len(items), len(items))]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
                resampled_scores.append(float(aggregate(resample)))
        if len(resampled_scores) == N_RESAMPLES:
            stderrs[metric] = statistics.stdev(resampled_scores)
    return stderrs


def main(arguments: Sequence[str]) -> int:
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "error.json"):
        (out / name).unlink(missing_ok=True)
    os.environ.update(job["env"])
    # Local tasks name their data relative to the folder it lies in.
    os.chdir(job["cwd"] or ".")
    try:
        run_tasks(job, out)
    except LmmsError as error:
        sys.stdout.write(error.message + "\n")
        (out / "error.json").write_text(json.dumps({"message": error.message, "hint": error.hint}), encoding="utf-8")
        return 1
    except Exception:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
