"""Runs a benchmark of a suite on a checkpoint: the job for lmms-eval, and its results as rows of the lake.

Belongs here: the way from a checkpoint to the tables `evaluation_benchmarks` and `evaluation_benchmark_answers`. Does
not: lmms-eval (`lmms`, in its own environment), starting processes (`launch`, handed in by the caller).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.settings import PROJECT, settings
from mvl_assets.inference.local_server.server_spec import ServeSpec
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks import synthetic_tasks
from mvl_training.evaluation.benchmarks.registry import (
    LOCAL,
    TASKS,
    Benchmark,
    BenchmarkError,
    Result,
    load_suites,
    question_score,
    result_of,
)
from mvl_training.runs.process_group import CommandFailed
from mvl_training.runs.stage_run import Checkpoint

TABLE, ANSWERS = "evaluation_benchmarks", "evaluation_benchmark_answers"
RUN_MODULE = "mvl_training.evaluation.lmms.run"
JUDGE_KEYS = ("OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_API_KEY")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

# Raised when the same questions are asked differently, so that scores of two versions are not compared.
ASKING_VERSION = 1
ROWS = 1024

# For the server: the most pictures of one question, its longest answer, and when it ends unused.
PICTURES, LONGEST_ANSWER, IDLE_SECONDS = 32, 4096, 300.0

Via = Literal["runner", "server"]
Launch = Callable[[Sequence[str], Path], None]


@dataclass(frozen=True, slots=True)
class Asking:
    """How a benchmark is asked. `limit` takes the first questions of each task; `max_new_tokens` stands in place of
    what benchmark and tasks say; `base_url` and `model` name a server that runs already (else one is started)."""

    via: Via = "runner"
    limit: int | None = None
    max_new_tokens: int | None = None
    base_url: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A finished benchmark. `data_version` is the digest of checkpoint, settings and scores."""

    suite: str
    benchmark: str
    checkpoint: Checkpoint
    result: Result
    settings_hash: str
    data_version: str
    folder: Path


def eval_python() -> Path:
    """The interpreter of lmms-eval's environment: `MVL_EVAL_PYTHON`, or `.venv-eval` of the project. Raises
    `BenchmarkError` when there is none."""
    python = Path(os.environ.get("MVL_EVAL_PYTHON", PROJECT / ".venv-eval" / "bin" / "python"))
    if not python.is_file():
        raise BenchmarkError(f"lmms-eval's environment is not there ({python})", hint="run `make eval-setup`")
    return python


def run(
    lake: Lake,
    checkpoint: Checkpoint,
    suite: str,
    name: str,
    *,
    asking: Asking,
    run_id: str,
    launch: Launch,
) -> Found:
    """Asks the benchmark and publishes what was found. Raises `BenchmarkError` in words a person can act on."""
    benchmark = load_suites()[suite].benchmarks[name]
    python = eval_python()
    if benchmark.judge and not any(os.environ.get(key) for key in JUDGE_KEYS):
        raise BenchmarkError(
            f"{name} is scored by a model behind an API, and no key for one is set",
            hint="export OPENAI_API_KEY; OPENAI_API_URL and MODEL_VERSION choose another judge than lmms-eval's",
        )
    folder = checkpoint.folder / "benchmarks" / name / asking.via
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.json"
    job.write_text(json.dumps(_job(lake, checkpoint, suite, benchmark, asking, folder, run_id)), encoding="utf-8")
    try:
        launch([str(python), "-m", RUN_MODULE, str(job)], folder)
    except CommandFailed as error:
        with suppress(FileNotFoundError):
            said = json.loads((folder / "error.json").read_text(encoding="utf-8"))
            raise BenchmarkError(f"{name}: {said['message']}", hint=said["hint"]) from error
        raise
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    result = result_of(benchmark, report)
    hashed = _settings_hash(benchmark, asking, result)
    rounded = [(task.task, task.questions, _rounded(task.score), task.task_hash) for task in result.tasks]
    found = Found(
        suite=suite,
        benchmark=name,
        checkpoint=checkpoint,
        result=result,
        settings_hash=hashed,
        data_version=digest_hex("benchmark", checkpoint.version, hashed, rounded),
        folder=folder,
    )
    _publish(lake, found, benchmark, via=asking.via, run_id=run_id)
    return found


def _job(
    lake: Lake,
    checkpoint: Checkpoint,
    suite: str,
    benchmark: Benchmark,
    asking: Asking,
    folder: Path,
    run_id: str,
) -> dict[str, Any]:
    """What `python -m mvl_training.evaluation.lmms.run` reads. Local data is drawn when it is not there yet."""
    common: dict[str, Any] = {
        "python": sys.executable,
        "version": checkpoint.version,
        "max_new_tokens": asking.max_new_tokens or benchmark.max_new_tokens,
    }
    if asking.via == "runner":
        # One file for all benchmarks: some share their questions.
        known = checkpoint.folder / "benchmarks" / "answers.jsonl"
        model_args = {**common, "checkpoint": str(checkpoint.export), "known": str(known)}
    else:
        model = asking.model or f"mvl-{checkpoint.stage}"
        model_args = {**common, "lake": lake.root, "model": model, "run_id": run_id}
        model_args |= {"base_url": asking.base_url} if asking.base_url else {"serve": asdict(serve_spec(checkpoint))}
    job: dict[str, Any] = {
        "model": f"mvl_{'runner' if asking.via == 'runner' else 'served'}",
        "model_args": model_args,
        "tasks": benchmark.tasks,
        "limit": asking.limit,
        "include": None,
        "cwd": None,
        "env": {},
        "out": str(folder),
    }
    if suite == LOCAL:
        home = settings().home / "evaluation"
        if not all((home / LOCAL / f"{task}.parquet").is_file() for task in synthetic_tasks.KINDS):
            synthetic_tasks.write(home / LOCAL)
        env = {**OFFLINE, "LMMS_EVAL_DATASETS_CACHE": str(home / "datasets")}
        job |= {"include": str(TASKS), "cwd": str(home / LOCAL), "env": env}
    return job


def serve_spec(checkpoint: Checkpoint) -> ServeSpec:
    """The checkpoint's own server, with room for the questions of any benchmark as far as the model has positions."""
    config = json.loads((checkpoint.export / "config.json").read_text(encoding="utf-8"))
    return ServeSpec(
        model=str(checkpoint.export),
        served_name=f"mvl-{checkpoint.stage}",
        max_model_len=min(checkpoint.length + LONGEST_ANSWER, config["text_config"]["max_position_embeddings"]),
        idle_seconds=IDLE_SECONDS,
        args=("--limit-mm-per-prompt", json.dumps({"image": PICTURES})),
    )


def _settings_hash(benchmark: Benchmark, asking: Asking, result: Result) -> str:
    """Of what makes two scores comparable besides the tasks' own code, whose hash stands beside."""
    return digest_hex(
        "benchmark settings",
        ASKING_VERSION,
        benchmark.tasks,
        benchmark.metric,
        asking.max_new_tokens or benchmark.max_new_tokens,
        asking.limit,
        asking.via,
        result.lmms_eval_version,
        os.environ.get("MODEL_VERSION") if benchmark.judge else None,
    )


def _publish(lake: Lake, found: Found, benchmark: Benchmark, *, via: Via, run_id: str) -> None:
    checkpoint, result = found.checkpoint, found.result
    part = digest_hex("benchmark part", checkpoint.version, found.benchmark, found.settings_hash)
    common = {
        "part": part,
        "checkpoint": checkpoint.stage,
        "checkpoint_version": checkpoint.version,
        "benchmark": found.benchmark,
        "settings_hash": found.settings_hash,
        "run_id": run_id,
    }
    shared = {
        **common,
        "suite": found.suite,
        "metric": benchmark.metric,
        "lmms_eval_version": result.lmms_eval_version,
        "via": via,
    }
    rows = [
        {
            **shared,
            "result_id": digest_hex("benchmark result", part, one.task),
            "task": one.task,
            "score": one.score,
            "stderr": one.stderr,
            "questions": one.questions,
            "paper_score": None,
            "task_version": one.version,
            "task_hash": one.task_hash,
        }
        for one in result.tasks
    ]
    whole = {
        **shared,
        "result_id": digest_hex("benchmark result", part, None),
        "task": None,
        "score": result.score,
        "stderr": result.stderr,
        "questions": result.questions,
        "paper_score": benchmark.paper.get(checkpoint.stage),
        "task_version": None,
        "task_hash": digest_hex([one.task_hash for one in result.tasks]),
    }
    schema = lake.table(TABLE).spec.columns
    lake.table(TABLE).publish([pa.Table.from_pylist([whole, *rows], schema=schema)], where=part)
    answers = _answer_rows(found, common, benchmark, lake.table(ANSWERS).spec.columns)
    lake.table(ANSWERS).publish(answers, where=part)


def _answer_rows(
    found: Found, common: Mapping[str, Any], benchmark: Benchmark, schema: pa.Schema
) -> Iterator[pa.Table]:
    """One row per question; tables of at most `ROWS`. Where a task has several filters, the first one's line counts."""
    hashes = {one.task: one.task_hash for one in found.result.tasks}
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with (found.folder / "samples.jsonl").open(encoding="utf-8") as lines:
        for sample in map(json.loads, lines):
            key = digest_hex("benchmark answer", common["part"], sample["task"], sample["doc_id"])
            if key in seen:
                continue
            seen.add(key)
            rows.append(
                {
                    **common,
                    "result_id": key,
                    "task": sample["task"],
                    "task_hash": hashes[sample["task"]],
                    "question_id": sample["question_id"],
                    "document": sample["doc_id"],
                    "expected": _text(sample["target"]),
                    "answer": _text(sample["filtered_resps"]),
                    "score": question_score(sample, benchmark),
                }
            )
            if len(rows) == ROWS:
                yield pa.Table.from_pylist(rows, schema=schema)
                rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema)


def _text(value: object) -> str:
    """An answer is a list with one text; a true answer may be anything."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def scores(lake: Lake, benchmark: str) -> list[dict[str, Any]]:
    """The rows of a benchmark as a whole, one per checkpoint version and settings."""
    wanted = f"{sql.equals('benchmark', benchmark)} AND task IS NULL"
    return list(lake.table(TABLE).rows(filter=wanted))


def score_table(found: Found, others: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: this checkpoint's score ± standard error, the paper's, and other checkpoints asked the same way."""
    benchmark = load_suites()[found.suite].benchmarks[found.benchmark]
    paper = benchmark.paper.get(found.checkpoint.stage)
    lines = ["| checkpoint | score | paper's 8B | chance | questions |", "|---|---|---|---|---|"]
    lines.append(
        f"| **{found.checkpoint.stage}** `{found.checkpoint.version[:8]}`"
        f" | **{shown(found.result.score, found.result.stderr)}** | {shown(paper)} | {shown(benchmark.chance)}"
        f" | {found.result.questions} |"
    )
    for row in others:
        if row["settings_hash"] == found.settings_hash and row["checkpoint_version"] != found.checkpoint.version:
            lines.append(
                f"| {row['checkpoint']} `{row['checkpoint_version'][:8]}` | {shown(row['score'], row['stderr'])}"
                f" | {shown(row['paper_score'])} | {shown(benchmark.chance)} | {row['questions']} |"
            )
    if len(found.result.tasks) > 1:
        lines += ["", "| task | score | questions |", "|---|---|---|"]
        lines += [f"| {one.task} | {shown(one.score, one.stderr)} | {one.questions} |" for one in found.result.tasks]
    notes = [benchmark.note] if benchmark.note else []
    if benchmark.metric is None:
        notes.append(f"Its answers are not public. The files for submission lie below `{found.folder}`.")
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def shown(score: float | None, stderr: float | None = None) -> str:
    if score is None:
        return "–"
    return f"{score:.1f}" if stderr is None else f"{score:.1f} ± {stderr:.1f}"


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
