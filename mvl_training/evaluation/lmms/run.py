"""Runs lmms-eval on tasks and leaves its results as files: `python -m mvl_training.evaluation.lmms.run JOB.json`.

The job is JSON: `model` (a name of `adapters`), `model_args`, `tasks`, `include` (a folder of task files that stands in
place of lmms-eval's own, or null), `limit` (questions a task, or null), `out` (a folder).

Leaves in `out`: `samples.jsonl`, one line per question and filter; then `results.json`, so that results are never
without their samples; or `error.json` {"message", "hint"} and exit code 1.
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
from pathlib import Path
from typing import Any

from mvl_assets.inference.torchvision_ops import repair_torch_companions

SEED = 20241206
RESAMPLES = 200
"""Bootstrap repetitions for aggregates without a formula: the error of a standard error of 200 is 5 %."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class TaskError(Exception):
    """A task cannot be run here. `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def run(job: Mapping[str, Any], out: Path) -> None:
    """Raises `TaskError`, `adapters.AnswerError`."""
    # Before the first import of lmms_eval, which imports torchvision.
    repair_torch_companions()
    from lmms_eval import evaluator
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    include = job["include"]
    manager = TaskManager("WARNING", include_path=include, include_defaults=include is None)
    if unknown := [task for task in job["tasks"] if task not in manager.all_tasks]:
        raise TaskError(f"lmms-eval has no task {', '.join(unknown)}", "see `lmms-eval tasks list`")
    # The data first: what cannot be fetched must not cost the loading of a model.
    tasks = [task for name in job["tasks"] for task in _tasks(_load(manager, name))]
    model = get_model(job["model"])(**job["model_args"])
    with _failing_in_words():
        results = evaluator.simple_evaluate(
            model=model,
            tasks=tasks,
            task_manager=manager,
            limit=job["limit"],
            log_samples=True,
            # Tasks for submission write their files below it.
            cli_args=argparse.Namespace(output_path=str(out), process_with_media=True, log_samples=True),
        )
    model.close()
    samples = results.pop("samples")
    with (out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for task, listed in samples.items():
            for sample in listed:
                row = {"task": task, "question_id": model.asked[task, sample["doc_id"]], **sample}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    kept = ("results", "versions", "n-samples", "higher_is_better", "lmms_eval_version", "configs")
    report = {name: results[name] for name in kept}
    report["task_hashes"] = {task.config.task: task_hash(task) for task in tasks}
    report["bootstrap"] = {task.config.task: _bootstrapped(task, samples[task.config.task]) for task in tasks}
    part = out / "results.json.part"
    part.write_text(json.dumps(report, ensure_ascii=False, default=str, indent=1), encoding="utf-8")
    part.replace(out / "results.json")


def _load(manager: Any, name: str) -> dict[str, Any]:
    """The task (or group of tasks) with its data. Raises `TaskError` in one line when that cannot be had."""
    from lmms_eval.tasks import get_task_dict

    try:
        loaded: dict[str, Any] = get_task_dict([name], manager, "chat")
    except Exception as error:
        causes = list(_causes(error))
        root = causes[-1]
        said = " ".join(f"{type(root).__name__}: {root}".split())[:300]
        where = next((path for path in map(_dataset_of, causes) if path), None) or _dataset_path(manager, name)
        raise TaskError(
            f"the data of {name} cannot be loaded from {where}: {said}",
            "where the hub can be reached, unset HF_HUB_OFFLINE and set HF_TOKEN for data behind a login; else download"
            f" it elsewhere (`hf download --repo-type dataset {where}`) and set HF_HOME to that cache",
        ) from error
    return loaded


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies below it; tenacity hides the last attempt's in the `last_attempt` of its own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        attempt = getattr(current, "last_attempt", None)
        current = attempt.exception() if attempt is not None else current.__cause__


def _dataset_of(error: BaseException) -> str | None:
    found = re.search(r"datasets/([\w.-]+/[\w.-]+)|'([\w.-]+/[\w.-]+)'", str(error))
    return (found.group(1) or found.group(2)) if found else None


def _dataset_path(manager: Any, name: str) -> str:
    from lmms_eval.utils import load_yaml_config

    file = manager.task_index[name]["yaml_path"]
    config = load_yaml_config(file, mode="full") if file != -1 else {}
    return str(config.get("dataset_path", "the hub"))


def _tasks(loaded: Mapping[Any, Any]) -> Iterator[Any]:
    """The leaves of lmms-eval's tree of groups and tasks."""
    for value in loaded.values():
        if isinstance(value, dict):
            yield from _tasks(value)
        else:
            yield value


@contextlib.contextmanager
def _failing_in_words() -> Iterator[None]:
    """Some tasks end the whole process when a film is missing."""
    try:
        yield
    except SystemExit as error:
        raise TaskError(
            f"a task gave up: {error.code}", "its films are not complete: delete its folder below HF_HOME and run again"
        ) from error


def task_hash(task: Any) -> str:
    """Digest of what scores depend on besides the data and the model: the task's settings and the code it names."""
    state = hashlib.blake2b(digest_size=16)
    settings = json.dumps(task.dump_config(), sort_keys=True, default=str)
    state.update(_ADDRESS.sub("", settings).encode())
    for file in sorted({inspect.getsourcefile(f) or "" for f in _functions(task)}):
        state.update(Path(file).read_bytes() if file else b"")
    return state.hexdigest()


def _functions(task: Any) -> Iterator[Callable[..., Any]]:
    values = [getattr(task.config, name) for name in vars(task.config)]
    for metric in task.config.metric_list or []:
        values += metric.values()
    for value in values:
        if inspect.isfunction(value):
            yield value


def _bootstrapped(task: Any, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The standard error of each metric whose aggregate has no formula, by resampling questions.

    lmms-eval leaves those without one, most of the paper's among them. Aggregates that write files (they take `args`)
    are left alone.
    """
    import numpy as np

    rng = np.random.default_rng(SEED)
    found: dict[str, float] = {}
    for metric, aggregate in task.aggregation().items():
        items = [sample[metric] for sample in samples if metric in sample]
        if len(items) < 2 or "args" in inspect.signature(aggregate).parameters or not isinstance(items[0], dict):
            continue
        drawn: list[float] = []
        for _ in range(RESAMPLES):
            chosen = [items[i] for i in rng.integers(0, len(items), len(items))]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
                drawn.append(float(aggregate(chosen)))
        if len(drawn) == RESAMPLES:
            found[metric] = statistics.stdev(drawn)
    return found


def main(arguments: Sequence[str]) -> int:
    from mvl_training.evaluation.lmms.adapters import AnswerError

    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "error.json"):
        (out / name).unlink(missing_ok=True)
    # Local tasks name their data relative to the folder it lies in.
    os.chdir(job["cwd"] or ".")
    try:
        run(job, out)
    except (TaskError, AnswerError) as error:
        sys.stdout.write(error.message + "\n")
        (out / "error.json").write_text(json.dumps({"message": error.message, "hint": error.hint}), encoding="utf-8")
        return 1
    except Exception:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
