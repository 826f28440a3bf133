"""A run of one benchmark on a checkpoint: the job for lmms-eval, and its results as rows of the lake."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.settings import PROJECT_ROOT, load_settings
from mvl_assets.inference.local_server.server_spec import ServerSpec
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.media import synthetic_tasks
from mvl_training.evaluation.benchmarks.paper_protocol import (
    DEFAULT_PROTOCOL,
    PAPER_FRAMES,
    PAPER_SYSTEM_PROMPT,
    PaperProtocol,
    Protocol,
)
from mvl_training.evaluation.benchmarks.registry import (
    LOCAL_SUITE,
    TASKS_DIR,
    Benchmark,
    BenchmarkError,
    BenchmarkResult,
    compute_question_score,
    load_suites,
    parse_benchmark_result,
    read_stratum,
)
from mvl_training.recipe import parse_recipe
from mvl_training.runs.process_group import CommandFailed, LaunchFn
from mvl_training.runs.training_run import Checkpoint
from mvl_training.trainer.run_files import BENCHMARKS_DIR, PROVENANCE_FILE

TABLE, ANSWERS_TABLE = "evaluation_benchmarks", "evaluation_benchmark_answers"
LMMS_RUN_MODULE = "mvl_training.evaluation.lmms.run"
JUDGE_API_KEY_VARS = ("OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_API_KEY")
OFFLINE_ENV = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

# Increased when the same questions are asked differently, so that scores of two versions are not compared.
EVAL_PROTOCOL_VERSION = 1
ROWS_PER_BATCH = 1024
N_FIRST_ANSWERS = 16

# Limits of the server: images of a question, tokens of an answer, seconds without requests before it ends.
MAX_IMAGES, MAX_ANSWER_TOKENS, IDLE_TIMEOUT_S = 32, 4096, 300.0

Backend = Literal["local", "server"]

# Names of the backends in settings hashes; "runner" is the former name of the local one.
_BACKEND_IN_DIGEST: Mapping[Backend, str] = {"local": "runner", "server": "server"}


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """How a benchmark is asked.

    Attributes:
        backend: `local` or `server`.
        protocol: `default`, or `paper`: frames, prompts and limits of the paper's copy of lmms-eval.
        limit: Ask only the first questions of each task.
        max_new_tokens: Replaces the limits of the benchmark and its tasks.
        base_urls: Running servers, which share the questions; none starts one.
        model: The model's name at the servers.
    """

    backend: Backend = "local"
    protocol: Protocol = DEFAULT_PROTOCOL
    limit: int | None = None
    max_new_tokens: int | None = None
    base_urls: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """A finished benchmark. `data_version` is the digest of checkpoint, settings and scores."""

    suite: str
    benchmark: str
    protocol: Protocol
    checkpoint: Checkpoint
    result: BenchmarkResult
    settings_hash: str
    data_version: str
    folder: Path


def resolve_eval_python() -> Path:
    """Return the interpreter of lmms-eval's environment: `MVL_EVAL_PYTHON`, or `.venv-eval` of the project.

    Raises:
        BenchmarkError: The interpreter does not exist.
    """
    python = _find_eval_python()
    if not python.is_file():
        raise BenchmarkError(f"lmms-eval's environment is missing ({python})", hint="run `make eval-setup`")
    return python


def is_lmms_eval_installed() -> bool:
    """Return whether the interpreter of lmms-eval's environment exists."""
    return _find_eval_python().is_file()


def _find_eval_python() -> Path:
    return Path(os.environ.get("MVL_EVAL_PYTHON", PROJECT_ROOT / ".venv-eval" / "bin" / "python"))


def run_benchmark(
    lake: Lake,
    checkpoint: Checkpoint,
    suite: str,
    name: str,
    *,
    benchmark_settings: BenchmarkSettings,
    run_id: str,
    launch: LaunchFn,
) -> BenchmarkReport:
    """Run a benchmark on a checkpoint and publish its scores and answers.

    Args:
        lake: The lake that gets the rows.
        checkpoint: The checkpoint to evaluate.
        suite: Name of the suite.
        name: Name of the benchmark in it.
        benchmark_settings: How it is asked.
        run_id: Run that the stored rows name.
        launch: Runs lmms-eval's process.

    Raises:
        BenchmarkError: The benchmark cannot be run; lmms-eval's own errors become one, too.
    """
    benchmark = load_suites()[suite].benchmarks[name]
    python = resolve_eval_python()
    if benchmark.judge and not any(os.environ.get(key) for key in JUDGE_API_KEY_VARS):
        raise BenchmarkError(
            f"{name} is scored by a judge model over an API, and no API key is set",
            hint="set OPENAI_API_KEY; OPENAI_API_URL and MODEL_VERSION select another judge than lmms-eval's",
        )
    backend, protocol = benchmark_settings.backend, benchmark_settings.protocol
    folder_name = backend if protocol == DEFAULT_PROTOCOL else f"{backend}-{protocol}"
    folder = checkpoint.output_dir / BENCHMARKS_DIR / name / folder_name
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / "job.json"
    job.write_text(
        json.dumps(_build_job(lake, checkpoint, suite, benchmark, benchmark_settings, folder, run_id)), encoding="utf-8"
    )
    try:
        launch([str(python), "-m", LMMS_RUN_MODULE, str(job)], folder)
    except CommandFailed as error:
        with suppress(FileNotFoundError):
            error_report = json.loads((folder / "error.json").read_text(encoding="utf-8"))
            raise BenchmarkError(f"{name}: {error_report['message']}", hint=error_report["hint"]) from error
        raise
    lmms_results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    result = parse_benchmark_result(benchmark, lmms_results)
    settings_digest = _compute_settings_hash(benchmark, benchmark_settings, result)
    rounded_scores = [
        (task.task, task.n_questions, _round_score(task.score), task.task_hash, task.n_unjudged)
        for task in result.task_scores
    ]
    benchmark_report = BenchmarkReport(
        suite=suite,
        benchmark=name,
        protocol=protocol,
        checkpoint=checkpoint,
        result=result,
        settings_hash=settings_digest,
        data_version=compute_digest("benchmark", checkpoint.version, settings_digest, rounded_scores),
        folder=folder,
    )
    _publish(lake, benchmark_report, benchmark, backend=backend, run_id=run_id)
    return benchmark_report


def _build_job(
    lake: Lake,
    checkpoint: Checkpoint,
    suite: str,
    benchmark: Benchmark,
    benchmark_settings: BenchmarkSettings,
    folder: Path,
    run_id: str,
) -> dict[str, Any]:
    """Return the job of `lmms.run`; generates the data of synthetic tasks if it is missing."""
    paper_protocol = _select_paper_protocol(benchmark, benchmark_settings)
    common: dict[str, Any] = {
        "python": sys.executable,
        "version": checkpoint.version,
        "max_new_tokens": _resolve_max_new_tokens(benchmark, benchmark_settings),
        **({} if paper_protocol is None else {"n_frames": PAPER_FRAMES, "system_prompt": PAPER_SYSTEM_PROMPT}),
    }
    if benchmark_settings.backend == "local":
        # One file for all benchmarks: some share their questions.
        answers_path = checkpoint.output_dir / BENCHMARKS_DIR / "answers.jsonl"
        model_args = {**common, "checkpoint": str(checkpoint.export_dir), "answers_path": str(answers_path)}
    else:
        model = benchmark_settings.model or f"mvl-{checkpoint.stage}"
        model_args = {**common, "lake_root": lake.root, "model": model, "run_id": run_id}
        model_args["max_frames"] = read_max_frames(checkpoint)
        model_args |= (
            {"base_urls": benchmark_settings.base_urls}
            if benchmark_settings.base_urls
            else {"server_spec": asdict(build_benchmark_server_spec(checkpoint))}
        )
    job: dict[str, Any] = {
        "model": f"mvl_{benchmark_settings.backend}",
        "model_args": model_args,
        "tasks": benchmark.tasks,
        "metric": benchmark.metric,
        "filter": benchmark.filter,
        "judge": {"verdict": benchmark.verdict} if benchmark.judge else None,
        "prompt": {} if paper_protocol is None else paper_protocol.prompt,
        "images_first": paper_protocol is not None and paper_protocol.images_first,
        "limit": benchmark_settings.limit,
        "include_path": None,
        "data_dir": None,
        "env": {},
        "output_dir": str(folder),
    }
    if suite == LOCAL_SUITE:
        evaluation_dir = load_settings().home / "evaluation"
        if not all(
            (evaluation_dir / LOCAL_SUITE / f"{task}.parquet").is_file() for task in synthetic_tasks.TASK_GENERATORS
        ):
            synthetic_tasks.write_task_data(evaluation_dir / LOCAL_SUITE)
        env = {**OFFLINE_ENV, "LMMS_EVAL_DATASETS_CACHE": str(evaluation_dir / "datasets")}
        job |= {"include_path": str(TASKS_DIR), "data_dir": str(evaluation_dir / LOCAL_SUITE), "env": env}
    return job


def _select_paper_protocol(benchmark: Benchmark, benchmark_settings: BenchmarkSettings) -> PaperProtocol | None:
    """Return what the paper's copy of lmms-eval does otherwise; None unless it is to be followed."""
    return benchmark.paper_protocol if benchmark_settings.protocol == "paper" else None


def _resolve_max_new_tokens(benchmark: Benchmark, benchmark_settings: BenchmarkSettings) -> int | None:
    """Return the limit of an answer: the run's, the protocol's or the benchmark's; None keeps the tasks' own."""
    paper_protocol = _select_paper_protocol(benchmark, benchmark_settings)
    paper_limit = None if paper_protocol is None else paper_protocol.max_new_tokens
    return benchmark_settings.max_new_tokens or paper_limit or benchmark.max_new_tokens


def build_benchmark_server_spec(checkpoint: Checkpoint) -> ServerSpec:
    """Return a server spec for the questions of any benchmark, limited by the positions of the model."""
    config = json.loads((checkpoint.export_dir / "config.json").read_text(encoding="utf-8"))
    return ServerSpec(
        model=str(checkpoint.export_dir),
        served_model_name=f"mvl-{checkpoint.stage}",
        max_model_len=min(checkpoint.max_seq_len + MAX_ANSWER_TOKENS, config["text_config"]["max_position_embeddings"]),
        idle_timeout_s=IDLE_TIMEOUT_S,
        args=build_media_args(MAX_IMAGES),
    )


def build_media_args(max_images: int) -> tuple[str, ...]:
    """Return flags of vLLM for so many images in a prompt, and for one video whose frames are all shown."""
    limits = json.dumps({"image": max_images, "video": 1})
    return ("--limit-mm-per-prompt", limits, "--media-io-kwargs", json.dumps({"video": {"num_frames": -1}}))


def read_max_frames(checkpoint: Checkpoint) -> int | None:
    """Return the most frames of a video that a checkpoint was trained on; None if vLLM lays videos out otherwise."""
    provenance = json.loads((checkpoint.export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
    recipe = parse_recipe(provenance["recipe"], str(checkpoint.export_dir / PROVENANCE_FILE))
    config = json.loads((checkpoint.export_dir / "config.json").read_text(encoding="utf-8"))
    # Frames that are sent have no times, which the students of other families are told.
    is_known = recipe.student is None and config.get("video_newlines", "one") == recipe.video_newlines
    return recipe.get_stage(provenance["stage"]).max_frames if is_known else None


def _compute_settings_hash(benchmark: Benchmark, benchmark_settings: BenchmarkSettings, result: BenchmarkResult) -> str:
    """Digest the settings that comparable scores share; the tasks' code has a hash of its own."""
    paper_protocol = _select_paper_protocol(benchmark, benchmark_settings)
    return compute_digest(
        "benchmark settings",
        EVAL_PROTOCOL_VERSION,
        benchmark.tasks,
        benchmark.metric,
        _resolve_max_new_tokens(benchmark, benchmark_settings),
        benchmark_settings.limit,
        _BACKEND_IN_DIGEST[benchmark_settings.backend],
        result.lmms_eval_version,
        os.environ.get("MODEL_VERSION") if benchmark.judge else None,
        *([] if paper_protocol is None else paper_protocol.list_settings()),
    )


def _publish(
    lake: Lake, benchmark_report: BenchmarkReport, benchmark: Benchmark, *, backend: Backend, run_id: str
) -> None:
    checkpoint, result = benchmark_report.checkpoint, benchmark_report.result
    partition_key = _compute_partition_key(benchmark_report)
    common = {
        "partition_key": partition_key,
        "checkpoint": checkpoint.stage,
        "checkpoint_version": checkpoint.version,
        "benchmark": benchmark_report.benchmark,
        "protocol": benchmark_report.protocol,
        "settings_hash": benchmark_report.settings_hash,
        "run_id": run_id,
    }
    shared = {
        **common,
        "suite": benchmark_report.suite,
        "metric": benchmark.metric,
        "lmms_eval_version": result.lmms_eval_version,
        "backend": backend,
    }
    rows = [
        {
            **shared,
            "result_id": compute_digest("benchmark result", partition_key, task_score.task),
            "task": task_score.task,
            "score": task_score.score,
            "stderr": task_score.stderr,
            "n_questions": task_score.n_questions,
            "n_unjudged": task_score.n_unjudged,
            "paper_score": None,
            "task_version": task_score.task_version,
            "task_hash": task_score.task_hash,
        }
        for task_score in result.task_scores
    ]
    overall_row = {
        **shared,
        "result_id": compute_digest("benchmark result", partition_key, None),
        "task": None,
        "score": result.score,
        "stderr": result.stderr,
        "n_questions": result.n_questions,
        "n_unjudged": result.n_unjudged,
        "paper_score": benchmark.paper.get(checkpoint.stage),
        "task_version": None,
        "task_hash": compute_digest([task_score.task_hash for task_score in result.task_scores]),
    }
    schema = lake.get_table(TABLE).spec.columns
    lake.get_table(TABLE).publish(
        [pa.Table.from_pylist([overall_row, *rows], schema=schema)], partition_key=partition_key
    )
    answers = _iter_answer_tables(benchmark_report, common, benchmark, lake.get_table(ANSWERS_TABLE).spec.columns)
    lake.get_table(ANSWERS_TABLE).publish(answers, partition_key=partition_key)


def _compute_partition_key(benchmark_report: BenchmarkReport) -> str:
    return compute_digest(
        "benchmark part",
        benchmark_report.checkpoint.version,
        benchmark_report.benchmark,
        benchmark_report.settings_hash,
    )


def _iter_answer_tables(
    benchmark_report: BenchmarkReport, common: Mapping[str, Any], benchmark: Benchmark, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield tables with one row per question; for a task with several filters, the line of the first one counts."""
    task_hashes = {task_score.task: task_score.task_hash for task_score in benchmark_report.result.task_scores}
    rows: list[dict[str, Any]] = []
    seen_ids: set[str] = set()
    with (benchmark_report.folder / "samples.jsonl").open(encoding="utf-8") as lines:
        for sample in map(json.loads, lines):
            result_id = compute_digest("benchmark answer", common["partition_key"], sample["task"], sample["doc_id"])
            if result_id in seen_ids:
                continue
            seen_ids.add(result_id)
            rows.append(
                {
                    **common,
                    "result_id": result_id,
                    "task": sample["task"],
                    "task_hash": task_hashes[sample["task"]],
                    "question_id": sample["question_id"],
                    "cluster": sample["cluster"],
                    "stratum": read_stratum(sample, benchmark),
                    "doc_id": sample["doc_id"],
                    "reference": _to_text(sample["target"]),
                    "answer": _to_text(sample["filtered_resps"]),
                    "score": compute_question_score(sample, benchmark),
                }
            )
            if len(rows) == ROWS_PER_BATCH:
                yield pa.Table.from_pylist(rows, schema=schema)
                rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=schema)


def _to_text(value: object) -> str:
    """Return an answer (a list with one text) or a reference (of any type) as text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_benchmark_scores(lake: Lake, benchmark: str) -> list[dict[str, Any]]:
    """Return the overall rows of a benchmark, one per checkpoint version and settings."""
    row_filter = f"{sql.equals('benchmark', benchmark)} AND task IS NULL"
    return list(lake.get_table(TABLE).iter_rows(filter=row_filter))


def read_first_answers(lake: Lake, benchmark_report: BenchmarkReport) -> list[dict[str, Any]]:
    """Return the first answers of each task of a finished benchmark."""
    first_answers = lake.get_table(ANSWERS_TABLE).iter_rows(
        ["task", "doc_id", "reference", "answer", "score"],
        f"doc_id < {N_FIRST_ANSWERS}",
        partition_key=_compute_partition_key(benchmark_report),
    )
    return list(first_answers)


def render_score_table(benchmark_report: BenchmarkReport, other_scores: Sequence[Mapping[str, Any]]) -> str:
    """Return markdown: score ± standard error of this checkpoint, of the paper, and of others asked the same way."""
    benchmark = load_suites()[benchmark_report.suite].benchmarks[benchmark_report.benchmark]
    paper_score = benchmark.paper.get(benchmark_report.checkpoint.stage)
    lines = ["| checkpoint | score | paper's 8B | chance | questions |", "|---|---|---|---|---|"]
    lines.append(
        f"| **{benchmark_report.checkpoint.stage}** `{benchmark_report.checkpoint.version[:8]}`"
        f" | **{format_score(benchmark_report.result.score, benchmark_report.result.stderr)}**"
        f" | {format_score(paper_score)} | {format_score(benchmark.chance)}"
        f" | {benchmark_report.result.n_questions} |"
    )
    for row in other_scores:
        if (
            row["settings_hash"] == benchmark_report.settings_hash
            and row["checkpoint_version"] != benchmark_report.checkpoint.version
        ):
            lines.append(
                f"| {row['checkpoint']} `{row['checkpoint_version'][:8]}` | {format_score(row['score'], row['stderr'])}"
                f" | {format_score(row['paper_score'])} | {format_score(benchmark.chance)} | {row['n_questions']} |"
            )
    if len(benchmark_report.result.task_scores) > 1:
        lines += ["", "| task | score | questions |", "|---|---|---|"]
        lines += [
            f"| {task_score.task} | {format_score(task_score.score, task_score.stderr)} | {task_score.n_questions} |"
            for task_score in benchmark_report.result.task_scores
        ]
    notes = [benchmark.note] if benchmark.note else []
    if benchmark.proxy_for is not None:
        notes.insert(
            0, f"A proxy for {benchmark.proxy_for}, whose answers are not public: not comparable with the paper."
        )
    if benchmark_report.protocol == "paper":
        notes.append("Asked with frames, prompts and limits of the paper's copy of lmms-eval (`protocol: paper`).")
    if benchmark_report.result.n_unjudged:
        notes.append(
            f"No score: the judge gave no verdict on {benchmark_report.result.n_unjudged} of"
            f" {benchmark_report.result.n_questions} questions. A rerun asks the judge again, not the checkpoint."
        )
    if benchmark.metric is None:
        notes.append(f"The reference answers are not public. Files for submission are in `{benchmark_report.folder}`.")
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def format_score(score: float | None, stderr: float | None = None) -> str:
    """Return `score ± stderr` with one decimal, or a dash."""
    if score is None:
        return "–"
    return f"{score:.1f}" if stderr is None else f"{score:.1f} ± {stderr:.1f}"


def _round_score(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
