"""lmms-eval in its own environment, offline: local tasks, both backends, and errors.

Run by `make test-eval`, which makes the environment first.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.lake import Lake
from mvl_assets.media import synthetic_tasks
from mvl_training.evaluation.benchmarks.benchmark_run import (
    ANSWERS_TABLE,
    BenchmarkReport,
    BenchmarkSettings,
    resolve_eval_python,
    run_benchmark,
)
from mvl_training.evaluation.benchmarks.paper_protocol import PAPER_SYSTEM_PROMPT
from mvl_training.evaluation.benchmarks.registry import TASKS_DIR, BenchmarkError, load_suites
from mvl_training.evaluation.compare import compare_checkpoints
from mvl_training.evaluation.student_runner import StudentRunner
from mvl_training.orchestration.benchmark_assets import build_benchmark_assets
from mvl_training.orchestration.launch import Launcher
from mvl_training.runs import training_run
from mvl_training.runs.process_group import CommandFailed
from mvl_training.runs.training_run import Checkpoint
from tests.patience import PATIENCE_S
from tests.servers import serving
from tests.training import tiny_model
from tests.training.evaluation.untrained import untrained_checkpoint

LIMIT = 6


pytestmark = pytest.mark.skipif("MVL_TEST_EVAL" not in os.environ, reason="run by `make test-eval`")


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lmms")


@pytest.fixture(autouse=True)
def shared_home(module_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One home for the module: data is drawn and answers are given once."""
    monkeypatch.setenv("MVL_HOME", str(module_home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(module_home / "hub"))


@pytest.fixture(scope="module")
def world(module_home: Path) -> Lake:
    return Lake(str(module_home / "lake"))


@pytest.fixture(scope="module")
def checkpoint(module_home: Path) -> Checkpoint:
    (module_home / "one").mkdir()
    return untrained_checkpoint(module_home / "one", version="1" * 32)


def _launch(command: Sequence[str], folder: Path) -> None:
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command,
            env=tiny_model.build_environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
    if done.returncode:
        raise CommandFailed(command, done.returncode, log)


def _run(
    world: Lake, checkpoint: Checkpoint, name: str, asking: BenchmarkSettings, suite: str = "local"
) -> BenchmarkReport:
    return run_benchmark(world, checkpoint, suite, name, benchmark_settings=asking, run_id="r", launch=_launch)


def _answers(world: Lake, result: BenchmarkReport) -> list[dict]:
    rows = world.get_table(ANSWERS_TABLE).iter_rows(filter=f"settings_hash = '{result.settings_hash}'")
    mine = [row for row in rows if row["checkpoint_version"] == result.checkpoint.version]
    return sorted(mine, key=lambda row: row["doc_id"])


@pytest.fixture(scope="module")
def pairs(module_home: Path, world: Lake, checkpoint: Checkpoint) -> BenchmarkReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_HOME", str(module_home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        return _run(world, checkpoint, "Synthetic-Pairs", BenchmarkSettings(limit=LIMIT))


def test_scored_answers_equal_the_runners_own_with_both_images_in_place(
    world: Lake, checkpoint: Checkpoint, pairs: BenchmarkReport
) -> None:
    rows = _answers(world, pairs)
    assert len(rows) == pairs.result.n_questions == LIMIT
    assert (pairs.result.lmms_eval_version, pairs.result.task_scores[0].task_version) == ("0.7.3", "1.0")
    assert pairs.result.stderr is not None
    runner = StudentRunner(checkpoint.export_dir)
    rng = random.Random(f"{synthetic_tasks.SEED} drawn_pairs")
    for row in rows:
        one = synthetic_tasks.draw_size_comparison_question(rng)
        first, second = one.images
        ask = one.text.split("<image>\n")[-1]
        parts = ["First picture: ", first, "Second picture: ", second, ask]
        assert row["answer"] == runner.generate_reply([("user", parts)], max_new_tokens=16) != ""
        assert row["reference"] == one.reference


def test_two_checkpoints_are_compared_question_by_question(
    world: Lake, module_home: Path, pairs: BenchmarkReport
) -> None:
    (module_home / "two").mkdir()
    other = untrained_checkpoint(module_home / "two", version="2" * 32, seed=7)
    result = _run(world, other, "Synthetic-Pairs", BenchmarkSettings(limit=LIMIT))
    assert result.settings_hash == pairs.settings_hash and result.data_version != pairs.data_version
    assert [row["question_id"] for row in _answers(world, result)] == [
        row["question_id"] for row in _answers(world, pairs)
    ]
    assert [row["answer"] for row in _answers(world, result)] != [row["answer"] for row in _answers(world, pairs)]
    (compared,) = compare_checkpoints(world, "1" * 32, "2" * 32)
    assert (compared.benchmark, compared.n_questions) == ("Synthetic-Pairs", LIMIT)


def test_the_server_backend_asks_the_same_questions(
    world: Lake, checkpoint: Checkpoint, pairs: BenchmarkReport
) -> None:
    with serving() as (server, endpoint):
        server.record_bodies = True
        asking = BenchmarkSettings(backend="server", limit=LIMIT, base_urls=(endpoint.base_url,), model="fake")
        result = _run(world, checkpoint, "Synthetic-Pairs", asking)
    rows = _answers(world, result)
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in _answers(world, pairs)]
    assert all(row["answer"].startswith("answer ") for row in rows)
    assert len(server.bodies) == LIMIT
    for body in server.bodies:
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        assert kinds == ["text", "image_url", "text", "image_url", "text"]
        assert body["max_tokens"] == 16


def test_the_papers_protocol_asks_otherwise_through_both_backends_and_is_not_compared_with_the_default(
    world: Lake, checkpoint: Checkpoint, pairs: BenchmarkReport
) -> None:
    report = _run(world, checkpoint, "Synthetic-Pairs", BenchmarkSettings(limit=2, protocol="paper"))
    rows = _answers(world, report)
    assert len(rows) == 2 and {row["protocol"] for row in rows} == {"paper"}
    assert report.settings_hash != pairs.settings_hash and report.folder != pairs.folder
    asked = {row["question_id"] for row in rows}
    assert not asked & {row["question_id"] for row in _answers(world, pairs)}, "another system prompt"
    runner = StudentRunner(checkpoint.export_dir)
    rng = random.Random(f"{synthetic_tasks.SEED} drawn_pairs")
    for row in rows:
        one = synthetic_tasks.draw_size_comparison_question(rng)
        parts = ["First picture: ", one.images[0], "Second picture: ", one.images[1], one.text.split("<image>\n")[-1]]
        messages = [("system", [PAPER_SYSTEM_PROMPT]), ("user", parts)]
        assert row["answer"] == runner.generate_reply(messages, max_new_tokens=16) != ""
    with serving() as (server, endpoint):
        server.record_bodies = True
        asking = BenchmarkSettings(
            backend="server", protocol="paper", limit=2, base_urls=(endpoint.base_url,), model="fake"
        )
        served = _run(world, checkpoint, "Synthetic-Pairs", asking)
    assert {row["question_id"] for row in _answers(world, served)} == asked
    for body in server.bodies:
        system, user = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user") and PAPER_SYSTEM_PROMPT in json.dumps(system)
    version = checkpoint.version
    with pytest.raises(BenchmarkError, match=r"Synthetic-Pairs \(default, paper\)"):
        compare_checkpoints(world, version, version, ["Synthetic-Pairs"])
    (compared,) = compare_checkpoints(world, version, version, ["Synthetic-Pairs"], "paper")
    assert (compared.protocol, compared.n_questions, compared.difference) == ("paper", 2, 0.0)


def test_a_refusing_server_fails_the_benchmark_instead_of_scoring_empty_answers(
    world: Lake, checkpoint: Checkpoint
) -> None:
    with (
        serving(FakeServerConfig(fault_rates={"400": 1.0})) as (_, endpoint),
        pytest.raises(BenchmarkError, match=r"Synthetic-Bars: 2 of 2 questions failed, the first with .*400"),
    ):
        _run(
            world,
            checkpoint,
            "Synthetic-Bars",
            BenchmarkSettings(backend="server", limit=2, base_urls=(endpoint.base_url,), model="fake"),
        )


def test_unreachable_data_is_an_error_of_one_line(world: Lake, checkpoint: Checkpoint) -> None:
    with pytest.raises(BenchmarkError) as caught:
        _run(world, checkpoint, "MuirBench", BenchmarkSettings(limit=2), suite="multi_image_and_video")
    assert "MuirBench: muirbench or its data from MUIRBENCH/MUIRBENCH cannot be loaded: " in caught.value.message
    assert "\n" not in caught.value.message and "HF_TOKEN" in str(caught.value.hint)


def test_a_local_benchmark_asset_shows_score_and_chance(
    module_home: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    training_run.set_current_checkpoint(checkpoint)
    suites = build_benchmark_assets("one_vision")
    (local,) = [suite for suite in suites if isinstance(suite, dg.AssetsDefinition) and suite.key.path[1] == "local"]
    result = dg.materialize(
        [local],
        partition_key="Synthetic-Counts",
        resources={"launcher": Launcher()},
        run_config={"ops": {local.op.name: {"config": {"stage": "single_image", "limit": 3, "max_new_tokens": 4}}}},
    )
    (event,) = result.get_asset_materialization_events()
    shown = event.materialization.metadata
    assert event.partition == "Synthetic-Counts"
    assert "| – | 20.0 | 3 |" in str(shown[metadata_keys.SCORES].value)
    assert str(shown[metadata_keys.PREVIEW].value).count("data:image/jpeg") == 3
    assert shown[metadata_keys.LMMS_EVAL_VERSION].value == "0.7.3" and shown[metadata_keys.QUESTIONS].value == 3


TASK = """
task: odd
dataset_path: parquet
dataset_kwargs: {data_files: {test: synthetic_counts.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: !function odd.doc_to_visual
doc_to_text: !function odd.doc_to_text
doc_to_target: "answer"
process_results: !function odd.process_results
metric_list:
  - {metric: by_hand, aggregation: !function odd.aggregate, higher_is_better: true}
  - {metric: submission, aggregation: !function odd.submit, higher_is_better: true}
"""
CODE = """
import json, sys
from pathlib import Path

def doc_to_visual(doc):
    if %(gives_up)s:
        sys.exit("video path: a.mp4 does not exist, please check")
    return [image.convert("RGB") for image in doc["images"]]

def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"].replace("<image>", "")

def process_results(doc, results):
    odd = {"score": int(doc["answer"]) %% 2, "said": results[0]}
    return {"by_hand": odd, "submission": odd}

def aggregate(results):
    return sum(one["score"] for one in results) / len(results)

def submit(results, args):
    Path(args.output_path, "submission.json").write_text(json.dumps(results))
"""


def _odd_job(folder: Path, checkpoint: Checkpoint, *, gives_up: bool) -> Path:
    """A task in the manner of the paper's benchmarks: no bound, no stop, its own aggregate, a file for submission."""
    synthetic_tasks.write_task_data(folder, n_questions=16)
    (folder / "odd.yaml").write_text(TASK, encoding="utf-8")
    (folder / "odd.py").write_text(CODE % {"gives_up": gives_up}, encoding="utf-8")
    model_args = {
        "python": sys.executable,
        "version": "v",
        "checkpoint": str(checkpoint.export_dir),
        "max_new_tokens": 24,
    }
    job = {
        "model": "mvl_local",
        "model_args": model_args | {"answers_path": str(folder / "known.jsonl")},
        "tasks": ["odd"],
        "metric": "by_hand",
        "filter": "none",
        "judge": {"verdict": "[01]"},
        "include_path": str(folder),
        "limit": None,
        "data_dir": str(folder),
        "env": {"LMMS_EVAL_DATASETS_CACHE": str(folder / "datasets")},
        "output_dir": str(folder / "out"),
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return folder / "job.json"


def test_a_task_with_its_own_aggregate_gets_a_standard_error_and_may_write_a_submission(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    job = _odd_job(tmp_path, checkpoint, gives_up=False)
    _launch([str(resolve_eval_python()), "-m", "mvl_training.evaluation.lmms.run", str(job)], tmp_path)
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    share = report["results"]["odd"]["by_hand,none"]
    assert report["results"]["odd"]["by_hand_stderr,none"] == "N/A"
    assert report["bootstrap"]["odd"] == {"by_hand": pytest.approx((share * (1 - share) / 16) ** 0.5, rel=0.25)}
    assert len(json.loads((tmp_path / "out" / "submission.json").read_text(encoding="utf-8"))) == 16
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text("utf-8").splitlines()]
    known = [json.loads(line) for line in (tmp_path / "known.jsonl").read_text("utf-8").split("\n") if line]
    assert [sample["resps"][0][0] for sample in samples] == [row["text"] for row in known]
    assert len({sample["question_id"] for sample in samples}) == 16
    assert {sample["single_question_scores"]["by_hand"] for sample in samples} <= {0.0, 1.0}
    assert sum(sample["single_question_scores"]["by_hand"] for sample in samples) == pytest.approx(16 * share)
    before = report["task_hashes"]["odd"]
    (tmp_path / "odd.py").write_text((tmp_path / "odd.py").read_text("utf-8") + "\n", encoding="utf-8")
    _launch([str(resolve_eval_python()), "-m", "mvl_training.evaluation.lmms.run", str(job)], tmp_path)
    again = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert again["task_hashes"]["odd"] != before and again["results"] == report["results"]


def test_a_metric_that_a_task_has_not_is_named_before_anything_is_loaded(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    job_file = _odd_job(tmp_path, checkpoint, gives_up=False)
    job = json.loads(job_file.read_text(encoding="utf-8"))
    job_file.write_text(json.dumps(job | {"metric": "renamed"}), encoding="utf-8")
    with pytest.raises(CommandFailed):
        _launch([str(resolve_eval_python()), "-m", "mvl_training.evaluation.lmms.run", str(job_file)], tmp_path)
    message = json.loads((tmp_path / "out" / "error.json").read_text(encoding="utf-8"))["message"]
    assert message == "odd of lmms-eval 0.7.3 has no metric 'renamed', only by_hand, submission"
    assert not (tmp_path / "known.jsonl").exists()


def test_questions_whose_judge_fails_are_counted(tmp_path: Path, checkpoint: Checkpoint) -> None:
    job = _odd_job(tmp_path, checkpoint, gives_up=False)
    judge = """
from lmms_eval.llm_judge import Request, ServerConfig, get_server

def process_results(doc, results):
    server = get_server("openai", ServerConfig(model_name="judge", num_retries=1))
    try:
        server.evaluate(Request(messages=[{"role": "user", "content": doc["answer"]}]))
    except Exception:
        pass
    return {"by_hand": {"score": 0}, "submission": {}}
"""
    with (tmp_path / "odd.py").open("a", encoding="utf-8") as file:
        file.write(judge)
    with serving(FakeServerConfig(fault_rates={"400": 1.0})) as (_, endpoint):
        environment = {"OPENAI_API_KEY": "none", "OPENAI_API_URL": endpoint.base_url}
        data = json.loads(job.read_text(encoding="utf-8"))
        job.write_text(json.dumps(data | {"limit": 3, "env": data["env"] | environment}), encoding="utf-8")
        _launch([str(resolve_eval_python()), "-m", "mvl_training.evaluation.lmms.run", str(job)], tmp_path)
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert report["unjudged"] == {"odd": 3}


def test_a_task_that_exits_the_process_is_an_error_with_its_message(tmp_path: Path, checkpoint: Checkpoint) -> None:
    job = _odd_job(tmp_path, checkpoint, gives_up=True)
    with pytest.raises(CommandFailed):
        _launch([str(resolve_eval_python()), "-m", "mvl_training.evaluation.lmms.run", str(job)], tmp_path)
    output = json.loads((tmp_path / "out" / "error.json").read_text(encoding="utf-8"))
    assert "a.mp4 does not exist" in output["message"] and output["hint"]


def test_every_declared_task_has_its_metric_and_both_models_are_importable() -> None:
    declared = [one for suite in load_suites().values() for one in suite.benchmarks.values()]
    tasks = [(task, one.metric, one.filter) for one in declared for task in one.tasks]
    code = (
        "import json, sys\n"
        "from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch\n"
        "patch_cpu_torch()\n"
        "from lmms_eval.tasks import TaskManager\n"
        "from mvl_training.evaluation.lmms.adapters import build_manifests\n"
        "from lmms_eval.utils import load_yaml_config\n"
        "index = TaskManager('ERROR', include_path=sys.argv[1]).task_index\n"
        "tasks = json.loads(sys.argv[2])\n"
        "wrong = []\n"
        "for task, metric, filter_ in tasks:\n"
        "    config = load_yaml_config(index[task]['yaml_path'], mode='full') if task in index else {}\n"
        "    metrics = [m['metric'] for m in config.get('metric_list', [])] + [None]\n"
        "    filters = [f['name'] for f in config.get('filter_list', [{'name': 'none'}])]\n"
        "    if metric not in metrics or filter_ not in filters:\n"
        "        wrong.append((task, metric, filter_, metrics, filters))\n"
        "print(json.dumps(wrong))\n"
        "print(json.dumps([m.model_id for m in build_manifests()]))\n"
    )
    done = subprocess.run(
        [str(resolve_eval_python()), "-c", code, str(TASKS_DIR), json.dumps(tasks)],
        # The tasks with a judge make its client when their code is imported.
        env=tiny_model.build_environment() | {"OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    wrong, models = done.stdout.splitlines()[-2:]
    assert json.loads(wrong) == []
    assert json.loads(models) == ["mvl_local", "mvl_server"]
