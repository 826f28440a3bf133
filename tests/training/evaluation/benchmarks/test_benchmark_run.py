"""From the files that lmms-eval leaves to tables of the lake, with a fake launch."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest

from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks import benchmark_run, paper_protocol
from mvl_training.evaluation.benchmarks.benchmark_run import (
    ANSWERS_TABLE,
    TABLE,
    BenchmarkSettings,
    read_benchmark_scores,
    read_first_answers,
    render_score_table,
    run_benchmark,
)
from mvl_training.evaluation.benchmarks.registry import BenchmarkError
from mvl_training.evaluation.compare import compare_checkpoints
from mvl_training.evaluation.lmms.question import PREVIEW_FILE, summarize_question
from mvl_training.orchestration.report import render_benchmark_preview
from mvl_training.recipe import load_recipe
from mvl_training.runs.process_group import CommandFailed
from mvl_training.runs.training_run import Checkpoint
from tests.raw_files import make_image

Launch = Callable[[Sequence[str], Path], None]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_EVAL_PYTHON", sys.executable)
    for key in benchmark_run.JUDGE_API_KEY_VARS:
        monkeypatch.delenv(key, raising=False)


def _checkpoint(home: Path, version: str = "a" * 32) -> Checkpoint:
    folder = home / "checkpoints" / version
    (folder / "export").mkdir(parents=True, exist_ok=True)
    config = {"text_config": {"max_position_embeddings": 2048}}
    (folder / "export" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    provenance = {"recipe": load_recipe("demo").model_dump(mode="json"), "stage": "single_image"}
    (folder / "export" / "mvl.json").write_text(json.dumps(provenance), encoding="utf-8")
    return Checkpoint("one_vision", folder, version, max_seq_len=512)


def _leaving(right: Sequence[bool], jobs: list[dict[str, Any]] | None = None, n_unjudged: int = 0) -> Launch:
    """What lmms-eval 0.7.3 leaves of `chartqa`, with one sample per question and filter."""

    def launch(command: Sequence[str], folder: Path) -> None:
        job = json.loads(Path(command[-1]).read_text(encoding="utf-8"))
        assert job["output_dir"] == str(folder)
        if jobs is not None:
            jobs.append(job)
        (task,) = job["tasks"]
        share = sum(right) / len(right)
        report = {
            "results": {task: {"alias": task, "relaxed_overall,none": share, "relaxed_overall_stderr,none": 0.01}},
            "versions": {task: "Yaml"},
            "n-samples": {task: {"original": 2500, "effective": len(right)}},
            "lmms_eval_version": "0.7.3",
            "task_hashes": {task: "0" * 32},
            "question_counts": {task: {"relaxed_overall": len(right)}},
            "unjudged": {task: n_unjudged},
            "bootstrap": {},
        }
        samples = [
            {
                "task": task,
                "question_id": f"q{n}",
                "doc_id": n,
                "cluster": f"c{n // 2}",
                "doc": {"type": "human_test"},
                "target": ["7"] if n % 2 else "7",
                "filtered_resps": ["7" if good else "8"],
                "relaxed_overall": float(good),
            }
            for n, good in enumerate(right)
        ]
        (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples), encoding="utf-8")
        (folder / "results.json").write_text(json.dumps(report), encoding="utf-8")

    return launch


def _failing(message: str | None, job: dict[str, Any] | None = None) -> Launch:
    def launch(command: Sequence[str], folder: Path) -> None:
        if job is not None:
            job.update(json.loads(Path(command[-1]).read_text(encoding="utf-8")))
        (folder / "log.txt").write_text("Traceback\nKeyError: 'x'\n", encoding="utf-8")
        if message is not None:
            (folder / "error.json").write_text(json.dumps({"message": message, "hint": "do it"}), encoding="utf-8")
        raise CommandFailed(command, 1, folder / "log.txt")

    return launch


def test_a_score_is_stored_with_its_error_origin_and_the_papers_score(lake: Lake, home: Path) -> None:
    checkpoint = _checkpoint(home)
    result = run_benchmark(
        lake,
        checkpoint,
        "documents",
        "ChartQA",
        benchmark_settings=BenchmarkSettings(limit=4),
        run_id="r",
        launch=_leaving([True] * 3 + [False]),
    )
    (row,) = read_benchmark_scores(lake, "ChartQA")
    assert (row["score"], row["stderr"], row["paper_score"], row["n_questions"]) == (75.0, 1.0, 86.2, 4)
    assert (row["checkpoint"], row["checkpoint_version"]) == ("one_vision", checkpoint.version)
    assert (row["lmms_eval_version"], row["backend"], row["settings_hash"]) == ("0.7.3", "local", result.settings_hash)
    assert lake.get_table(TABLE).count() == 2, "the benchmark and its one task"
    answers = sorted(lake.get_table(ANSWERS_TABLE).iter_rows(), key=lambda answer: answer["doc_id"])
    assert [answer["score"] for answer in answers] == [1.0, 1.0, 1.0, 0.0]
    assert [answer["answer"] for answer in answers] == ["7", "7", "7", "8"]
    assert [answer["cluster"] for answer in answers] == ["c0", "c0", "c1", "c1"]
    assert {answer["reference"] for answer in answers} == {"7"}
    shown = render_score_table(result, read_benchmark_scores(lake, "ChartQA"))
    assert "| **one_vision** `aaaaaaaa` | **75.0 ± 1.0** | 86.2 | – | 4 |" in shown


def test_unjudged_questions_are_counted_and_leave_no_score(lake: Lake, home: Path) -> None:
    report = run_benchmark(
        lake,
        _checkpoint(home),
        "documents",
        "ChartQA",
        benchmark_settings=BenchmarkSettings(),
        run_id="r",
        launch=_leaving([True, False], n_unjudged=1),
    )
    (row,) = read_benchmark_scores(lake, "ChartQA")
    assert (row["score"], row["stderr"], row["n_unjudged"]) == (None, None, 1)
    assert "no verdict on 1 of 2 questions" in render_score_table(report, [])


def test_the_preview_of_a_benchmark_has_its_first_questions_as_they_were_asked(lake: Lake, home: Path) -> None:
    report = run_benchmark(
        lake,
        _checkpoint(home),
        "documents",
        "ChartQA",
        benchmark_settings=BenchmarkSettings(limit=2),
        run_id="r",
        launch=_leaving([True, False]),
    )
    assert render_benchmark_preview(report.folder, read_first_answers(lake, report)) == "none"
    image = base64.b64encode(make_image(1)).decode()
    parts = [{"image": image}, {"text": "How many <b>|</b>?"}, {"image": image}]
    asked = [
        {"task": "chartqa", "doc_id": 0, **summarize_question({"messages": [{"role": "user", "parts": parts}]})},
        {"task": "chartqa", "doc_id": 1, **summarize_question({"messages": [{"parts": [{"text": "And?"}]}]})},
    ]
    (report.folder / PREVIEW_FILE).write_text(json.dumps(asked), encoding="utf-8")
    _, _, first, second = render_benchmark_preview(report.folder, read_first_answers(lake, report)).splitlines()
    assert first.startswith("| ![chartqa](data:image/jpeg") and " +1 | How many &#60;b&#62;&#124;&#60;/b&#62;?" in first
    assert first.endswith("| 7 | ✓ 7 |") and second == "| – | And? | 7 | 8 |"


def test_a_rerun_changes_nothing_and_another_checkpoint_is_added_and_comparable(lake: Lake, home: Path) -> None:
    def ask(checkpoint: Checkpoint, right: Sequence[bool], run_id: str) -> benchmark_run.BenchmarkReport:
        return run_benchmark(
            lake,
            checkpoint,
            "documents",
            "ChartQA",
            benchmark_settings=BenchmarkSettings(),
            run_id=run_id,
            launch=_leaving(right),
        )

    old, new = _checkpoint(home), _checkpoint(home, "b" * 32)
    first = ask(old, [True, False, False, False], "r1")
    version = lake.get_table(ANSWERS_TABLE).version
    assert ask(old, [True, False, False, False], "r2").data_version == first.data_version
    assert lake.get_table(ANSWERS_TABLE).version == version
    second = ask(new, [True, True, True, False], "r3")
    assert second.data_version != first.data_version
    shown = render_score_table(second, read_benchmark_scores(lake, "ChartQA"))
    assert "**75.0 ± 1.0**" in shown and "| one_vision `aaaaaaaa` | 25.0 ± 1.0 |" in shown
    (compared,) = compare_checkpoints(lake, old.version, new.version)
    assert (compared.n_questions, compared.n_gained, compared.n_lost, compared.difference) == (4, 2, 0, 50.0)


def test_other_settings_give_another_result(lake: Lake, home: Path) -> None:
    checkpoint = _checkpoint(home)
    hashes = {
        run_benchmark(
            lake, checkpoint, "documents", "ChartQA", benchmark_settings=a, run_id="r", launch=_leaving([True, True])
        ).settings_hash
        for a in (
            BenchmarkSettings(),
            BenchmarkSettings(limit=2),
            BenchmarkSettings(max_new_tokens=64),
            BenchmarkSettings(backend="server"),
            BenchmarkSettings(protocol="paper"),
        )
    }
    assert len(hashes) == len(read_benchmark_scores(lake, "ChartQA")) == 5


def test_a_change_of_the_papers_protocol_changes_only_results_of_that_protocol(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(protocol: paper_protocol.Protocol) -> benchmark_run.BenchmarkReport:
        return run_benchmark(
            lake,
            _checkpoint(home),
            "documents",
            "ChartQA",
            benchmark_settings=BenchmarkSettings(protocol=protocol),
            run_id="r",
            launch=_leaving([True, True]),
        )

    default, paper = ask("default"), ask("paper")
    assert default.folder != paper.folder, "files for submission are not overwritten"
    monkeypatch.setattr(paper_protocol, "PAPER_FRAMES", 16)
    assert ask("default").data_version == default.data_version
    assert ask("paper").data_version not in (paper.data_version, default.data_version)


def test_every_score_and_answer_says_by_which_protocol_it_was_asked(lake: Lake, home: Path) -> None:
    old, new = _checkpoint(home), _checkpoint(home, "b" * 32)
    for checkpoint, right in ((old, [True, False]), (new, [True, True])):
        for protocol in get_args(paper_protocol.Protocol):
            run_benchmark(
                lake,
                checkpoint,
                "documents",
                "ChartQA",
                benchmark_settings=BenchmarkSettings(protocol=protocol),
                run_id="r",
                launch=_leaving(right if protocol == "paper" else [False, False]),
            )
    scores = {
        (row["checkpoint_version"], row["protocol"]): row["score"] for row in read_benchmark_scores(lake, "ChartQA")
    }
    assert scores == {
        (old.version, "default"): 0.0,
        (old.version, "paper"): 50.0,
        (new.version, "default"): 0.0,
        (new.version, "paper"): 100.0,
    }
    assert {row["protocol"] for row in lake.get_table(ANSWERS_TABLE).iter_rows()} == {"default", "paper"}
    with pytest.raises(BenchmarkError, match="by two protocols"):
        compare_checkpoints(lake, old.version, new.version)
    (compared,) = compare_checkpoints(lake, old.version, new.version, protocol="paper")
    assert (compared.first_score, compared.second_score) == (50.0, 100.0)


@pytest.mark.parametrize(
    ("suite", "name", "max_new_tokens", "prompt", "images_first"),
    [
        ("knowledge", "MMMU", 16, {}, True),
        ("multi_image_and_video", "MLVU", None, {"pre_prompt": "\n", "post_prompt": "\nBest option: ("}, False),
        ("proxies", "EgoSchema-Subset", 1024, {}, False),
        ("documents", "ChartQA", None, {}, False),
    ],
)
def test_the_papers_protocol_is_part_of_the_job(
    lake: Lake,
    home: Path,
    suite: str,
    name: str,
    max_new_tokens: int | None,
    prompt: dict[str, str],
    images_first: bool,
) -> None:
    jobs: dict[paper_protocol.Protocol, dict[str, Any]] = {}
    for protocol in ("default", "paper"):
        with pytest.raises(BenchmarkError, match="stops here"):
            run_benchmark(
                lake,
                _checkpoint(home),
                suite,
                name,
                benchmark_settings=BenchmarkSettings(protocol=protocol),
                run_id="r",
                launch=_failing("stops here", jobs.setdefault(protocol, {})),
            )
    asked = jobs["paper"]
    assert asked["model_args"]["n_frames"] == 32 and "created by Alibaba Cloud" in asked["model_args"]["system_prompt"]
    assert asked["model_args"]["max_new_tokens"] == max_new_tokens
    assert (asked["prompt"], asked["images_first"]) == (prompt, images_first)
    asked = jobs["default"]
    assert not asked["model_args"].keys() & {"n_frames", "system_prompt"}
    assert (asked["model_args"]["max_new_tokens"], asked["prompt"], asked["images_first"]) == (None, {}, False)


def test_a_report_says_by_which_protocol_it_asked_and_what_a_proxy_stands_for(lake: Lake, home: Path) -> None:
    report = run_benchmark(
        lake,
        _checkpoint(home),
        "documents",
        "ChartQA",
        benchmark_settings=BenchmarkSettings(protocol="paper"),
        run_id="r",
        launch=_leaving([True, True]),
    )
    assert "`protocol: paper`" in render_score_table(report, [])
    default = replace(report, protocol="default")
    assert "protocol" not in render_score_table(default, []) and "proxy" not in render_score_table(default, [])
    proxy = replace(default, suite="proxies", benchmark="EgoSchema-Subset")
    assert "A proxy for EgoSchema" in render_score_table(proxy, [])


def test_the_job_names_the_weights_and_the_server_to_start(lake: Lake, home: Path) -> None:
    checkpoint, jobs = _checkpoint(home), []
    for asking in (
        BenchmarkSettings(),
        BenchmarkSettings(backend="server"),
        BenchmarkSettings(backend="server", base_urls=("http://a:8000/v1", "http://b:8000/v1"), model="m"),
    ):
        run_benchmark(
            lake,
            checkpoint,
            "documents",
            "ChartQA",
            benchmark_settings=asking,
            run_id="r",
            launch=_leaving([True, True], jobs),
        )
    runner, started, running = (job["model_args"] for job in jobs)
    assert [job["model"] for job in jobs] == ["mvl_local", "mvl_server", "mvl_server"]
    assert runner["checkpoint"] == str(checkpoint.export_dir) and runner["version"] == checkpoint.version
    assert started["server_spec"]["model"] == str(checkpoint.export_dir) and "base_urls" not in started
    assert started["server_spec"]["max_model_len"] == 2048, "what the model has positions for"
    assert (running["base_urls"], running["model"]) == (["http://a:8000/v1", "http://b:8000/v1"], "m")
    assert "server_spec" not in running
    assert started["max_frames"] == running["max_frames"] == load_recipe("demo").get_stage("single_image").max_frames
    assert jobs[0]["include_path"] is None


def test_a_server_gets_no_videos_of_a_checkpoint_that_reads_them_otherwise(home: Path) -> None:
    checkpoint = _checkpoint(home)
    file = checkpoint.export_dir / "mvl.json"
    provenance = json.loads(file.read_text(encoding="utf-8"))
    provenance["recipe"]["video_newlines"] = "grid"
    file.write_text(json.dumps(provenance), encoding="utf-8")
    assert benchmark_run.read_max_frames(checkpoint) is None, "an export from before its config said so"
    config = {"text_config": {"max_position_embeddings": 2048}, "video_newlines": "grid"}
    (checkpoint.export_dir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert benchmark_run.read_max_frames(checkpoint) is not None


def test_the_local_suite_generates_its_data_once_and_works_offline(lake: Lake, home: Path) -> None:
    jobs: list[dict[str, Any]] = []
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="no 'exact_match,none' for synthetic_bars"):
            launch = _leaving([True], jobs)
            run_benchmark(
                lake,
                _checkpoint(home),
                "local",
                "Synthetic-Bars",
                benchmark_settings=BenchmarkSettings(),
                run_id="r",
                launch=launch,
            )
    first, second = jobs
    assert first == second
    assert first["env"]["HF_HUB_OFFLINE"] == "1" and Path(first["include_path"]).name == "tasks"
    assert pq.read_table(Path(first["data_dir"]) / "synthetic_bars.parquet").num_rows == 120


def test_an_error_of_lmms_eval_is_one_line_with_a_hint(lake: Lake, home: Path) -> None:
    arguments = (lake, _checkpoint(home), "documents", "ChartQA")
    with pytest.raises(BenchmarkError) as caught:
        run_benchmark(
            *arguments, benchmark_settings=BenchmarkSettings(), run_id="r", launch=_failing("chartqa cannot be loaded")
        )
    assert str(caught.value) == "ChartQA: chartqa cannot be loaded | do it"
    (home / "checkpoints" / ("a" * 32) / "benchmarks" / "ChartQA" / "local" / "error.json").unlink()
    with pytest.raises(CommandFailed, match="KeyError"):
        run_benchmark(*arguments, benchmark_settings=BenchmarkSettings(), run_id="r", launch=_failing(None))


def test_a_missing_environment_or_judge_key_launches_nothing(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = _failing("launched")
    with pytest.raises(BenchmarkError, match=r"MM-Vet is scored by a judge model over an API.*OPENAI_API_KEY"):
        run_benchmark(
            lake,
            _checkpoint(home),
            "knowledge",
            "MM-Vet",
            benchmark_settings=BenchmarkSettings(),
            run_id="r",
            launch=launched,
        )
    monkeypatch.setenv("MVL_EVAL_PYTHON", str(home / "nowhere"))
    with pytest.raises(BenchmarkError, match="make eval-setup"):
        run_benchmark(
            lake,
            _checkpoint(home),
            "documents",
            "ChartQA",
            benchmark_settings=BenchmarkSettings(),
            run_id="r",
            launch=launched,
        )
