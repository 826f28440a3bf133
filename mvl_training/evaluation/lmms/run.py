"""Run lmms-eval on tasks and write its results to files: `python -m mvl_training.evaluation.lmms.run JOB.json`.

The job is JSON: `model` (a name of `adapters`), `model_args`, `tasks`, `include_path` (a folder of task files that
replaces lmms-eval's own, or null), `metric` and `filter` (what the score is read from, or null), `judge` ({"verdict"}
of `JudgeCalls`, or null without a judge), `prompt` (texts that replace the tasks' `pre_prompt` and `post_prompt`),
`images_first` (whether all images come before the text), `limit` (questions of each task, or null), `data_dir` (where
the data of local tasks is, or null), `env` (variables set before lmms-eval is imported), `output_dir`.

Files in `output_dir`: `preview.json` has the first questions as they were asked. `samples.jsonl` has a line per
question and filter, with `single_question_scores` (each aggregate applied to that question alone), `cluster` (what
the question shows) and, if a judge gave no verdict, `mvl_unjudged`. `results.json` is
written after them, so results are never without their samples. After an error there is `error.json` {"message",
"hint"} instead, and the exit code is 1.
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

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_training.evaluation.lmms.judge_calls import UNJUDGED, JudgeCalls, observe_judges
from mvl_training.evaluation.lmms.question import PREVIEW_FILE, LmmsError

STDERR_SEED = 20241206
N_RESAMPLES = 200
"""Bootstrap repetitions for aggregates without a formula: the error of a standard error of 200 is 5 %."""

_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class TaskError(LmmsError):
    """A task cannot be run here."""


def run_tasks(job: Mapping[str, Any], output_dir: Path) -> None:
    """Run the tasks of a job and write `samples.jsonl` and `results.json`.

    Args:
        job: See the module's docstring.
        output_dir: Existing folder.

    Raises:
        LmmsError: A task cannot be run, or a question cannot be answered.
    """
    # Before the first import of lmms_eval, which imports torchvision.
    patch_cpu_torch()
    from lmms_eval import evaluator
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    from mvl_training.evaluation.lmms.adapters import build_manifests

    for manifest in build_manifests():
        MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    include_path = job["include_path"]
    task_manager = TaskManager("WARNING", include_path=include_path, include_defaults=include_path is None)
    if unknown := [task for task in job["tasks"] if task not in task_manager.all_tasks]:
        raise TaskError(f"lmms-eval has no task {', '.join(unknown)}", "see `lmms-eval tasks list`")
    # The data first: no model is loaded for data that cannot be fetched.
    tasks = [task for name in job["tasks"] for task in _iter_tasks(_load_task(task_manager, name))]
    for task in tasks:
        check_metric(task, job["metric"], job["filter"])
        apply_prompt(task, job["prompt"], images_first=job["images_first"])
    if job["judge"] is not None:
        judge_calls = JudgeCalls(job["judge"]["verdict"])
        observe_judges(judge_calls)
        for task in tasks:
            task.process_results = judge_calls.check_verdicts(task.process_results)
    model = MODEL_REGISTRY_V2.get_model_class(job["model"])(**job["model_args"])
    with _convert_exit_to_error():
        results = evaluator.simple_evaluate(
            model=model,
            tasks=tasks,
            task_manager=task_manager,
            limit=job["limit"],
            log_samples=True,
            # Tasks for submission write their files below it.
            cli_args=argparse.Namespace(output_path=str(output_dir), process_with_media=True, log_samples=True),
        )
    model.close()
    write_text_atomic(output_dir / PREVIEW_FILE, json.dumps(model.previewed_questions))
    samples = results.pop("samples")
    tasks_by_name = {task.config.task: task for task in tasks}
    with (output_dir / "samples.jsonl").open("w", encoding="utf-8") as file:
        for name, task_samples in samples.items():
            for sample in task_samples:
                question_fields = {
                    "question_id": model.question_ids[name, sample["doc_id"]],
                    "cluster": model.clusters[name, sample["doc_id"]],
                    "single_question_scores": compute_single_question_scores(tasks_by_name[name], sample),
                }
                row = {"task": name, **question_fields, **sample}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    copied_keys = ("results", "versions", "n-samples", "higher_is_better", "configs")
    report = {name: results[name] for name in copied_keys}
    report["lmms_eval_version"] = metadata.version("lmms_eval")
    report["task_hashes"] = {task.config.task: compute_task_hash(task) for task in tasks}
    report["question_counts"] = {task: count_questions(listed) for task, listed in samples.items()}
    report["unjudged"] = {task: count_questions(listed).get(UNJUDGED, 0) for task, listed in samples.items()}
    report["bootstrap"] = {task.config.task: _bootstrap_stderrs(task, samples[task.config.task]) for task in tasks}
    write_text_atomic(output_dir / "results.json", json.dumps(report, ensure_ascii=False, default=str, indent=1))


def _load_task(task_manager: Any, name: str) -> dict[str, Any]:
    """Return a task or group of tasks with its data; raise `TaskError` in one line when that fails."""
    from lmms_eval.tasks import get_task_dict

    try:
        loaded: dict[str, Any] = get_task_dict([name], task_manager, "chat")
    except Exception as error:
        root_cause = _find_root_cause(error)
        cause_text = " ".join(f"{type(root_cause).__name__}: {root_cause}".split())[:300]
        dataset_path = _resolve_dataset_path(task_manager, name)
        raise TaskError(
            f"{name} or its data from {dataset_path} cannot be loaded: {cause_text}",
            "where the hub can be reached, unset HF_HUB_OFFLINE and set HF_TOKEN (most tasks want one, for public data"
            f" too); else download elsewhere (`hf download --repo-type dataset {dataset_path}`) and set HF_HOME to that"
            " cache",
        ) from error
    return loaded


def _find_root_cause(error: BaseException) -> BaseException:
    """Return the first cause of an error; tenacity hides the last attempt's error in one of its own."""
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
    """Yield the leaves of lmms-eval's tree of groups and tasks."""
    for value in loaded.values():
        if isinstance(value, dict):
            yield from _iter_tasks(value)
        else:
            yield value


def check_metric(task: Any, metric: str | None, filter_: str | None) -> None:
    """Raise `TaskError` unless the task has the metric and the filter that the score is to be read from."""
    filters = [entry["name"] for entry in task.config.filter_list or [{"name": "none"}]]
    for kind, name, known in (("metric", metric, list(task.aggregation())), ("filter", filter_, filters)):
        if name is not None and name not in known:
            raise TaskError(
                f"{task.config.task} of lmms-eval {metadata.version('lmms_eval')} has no {kind} {name!r}, only"
                f" {', '.join(sorted(known))}",
                "correct benchmarks.yaml",
            )


def apply_prompt(task: Any, prompt: Mapping[str, str], *, images_first: bool) -> None:
    """Change how a task of lmms-eval asks; its hash changes as well.

    Args:
        task: The task, which is changed.
        prompt: Texts that replace its `pre_prompt` and `post_prompt`.
        images_first: Let lmms-eval build messages by its own rule, all images and then the text.

    Raises:
        TaskError: The task has no such text.
    """
    texts = task.lmms_eval_specific_kwargs or {}
    if unknown := sorted(prompt.keys() - texts.keys()):
        raise TaskError(
            f"{task.config.task} of lmms-eval {metadata.version('lmms_eval')} has no {', '.join(unknown)}",
            "correct paper_protocol in benchmarks.yaml",
        )
    texts.update(prompt)
    if images_first:
        task.config.doc_to_messages = None


@contextlib.contextmanager
def _convert_exit_to_error() -> Iterator[None]:
    """Raise `TaskError` where a task ends the whole process, as some do when a video is missing."""
    try:
        yield
    except SystemExit as error:
        raise TaskError(
            f"a task gave up: {error.code}", "its videos are incomplete: delete its folder below HF_HOME and run again"
        ) from error


def compute_task_hash(task: Any) -> str:
    """Return a digest of the task's settings and the code that they name; scores depend on it, data and model."""
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
    """Count the questions that have each field; a question with several filters has several lines and counts once."""
    doc_ids_by_field: dict[str, set[int]] = {}
    for sample in samples:
        for name in sample:
            doc_ids_by_field.setdefault(name, set()).add(sample["doc_id"])
    return {name: len(doc_ids) for name, doc_ids in doc_ids_by_field.items()}


def compute_single_question_scores(task: Any, sample: Mapping[str, Any]) -> dict[str, float]:
    """Return each aggregate of the task applied to this question alone, for metrics whose values are records.

    In this way the task's own code scores records in its own format, such as MMMU's candidates for an open answer.
    Metrics whose aggregate gives no number are left out.
    """
    scores: dict[str, float] = {}
    for metric, aggregate in _iter_aggregations(task):
        if isinstance(sample.get(metric), dict):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
                scores[metric] = float(aggregate([sample[metric]]))
    return scores


def _iter_aggregations(task: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (metric, aggregate), except for aggregates that write files, which take `args`."""
    for metric, aggregate in task.aggregation().items():
        if "args" not in inspect.signature(aggregate).parameters:
            yield metric, aggregate


def _bootstrap_stderrs(task: Any, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return standard errors by resampling questions, for metrics whose values are records.

    lmms-eval has no formula for their aggregates, which are most of the paper's.
    """
    import numpy as np

    rng = np.random.default_rng(STDERR_SEED)
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
    """Run a job; return the exit status."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    output_dir = Path(job["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "error.json", PREVIEW_FILE):
        (output_dir / name).unlink(missing_ok=True)
    os.environ.update(job["env"])
    # Local tasks name their data files relative to their folder.
    os.chdir(job["data_dir"] or ".")
    try:
        run_tasks(job, output_dir)
    except LmmsError as error:
        sys.stdout.write(error.message + "\n")
        (output_dir / "error.json").write_text(
            json.dumps({"message": error.message, "hint": error.hint}), encoding="utf-8"
        )
        return 1
    except Exception:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
