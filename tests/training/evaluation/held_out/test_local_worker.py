"""The local backend: what the runner is shown, and what survives a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mvl_assets.config.profile import PROFILES_DIR
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import build_blank_image
from mvl_training.evaluation.held_out import evaluate, local_worker
from mvl_training.evaluation.held_out.questions import QUESTIONS_PER_CATEGORY
from mvl_training.evaluation.held_out.suite import select_held_out_questions
from mvl_training.runs.training_run import Checkpoint

ShownQuestion = tuple[list[bytes], str]


class RecordingRunner:
    """A runner that answers with the number of bytes of the images and records its questions."""

    def __init__(self) -> None:
        self.questions: list[ShownQuestion] = []

    def answer_questions(self, questions: Sequence[ShownQuestion]) -> list[str]:
        self.questions += questions
        return [f"{sum(map(len, images))} bytes" for images, _ in questions]

    def compute_losses(self, samples: Sequence[tuple[list[bytes], str, str]]) -> list[float]:
        return [float(sum(map(len, images))) for images, _, _ in samples]


def test_each_question_is_asked_with_its_images_and_once_with_grey_ones(lake: Lake) -> None:
    questions = select_held_out_questions(lake, ["general", "language"], 0.999999, per_category=6)
    runner = RecordingRunner()
    answers = {
        row.question_id: row for row in local_worker.answer_questions(lake, runner, questions, answer_scope="all")
    }
    assert set(answers) == {question.question_id for question in questions}
    for question in questions:
        data = [lake.images.read_images([i])[i] for i in question.image_ids]
        row = answers[question.question_id]
        assert row.answer == f"{sum(map(len, data))} bytes"
        assert row.loss == sum(map(len, data))
        if data:
            assert row.blank_image_answer == f"{len(build_blank_image(data[0]))} bytes"
            assert row.blank_image_loss == len(build_blank_image(data[0]))
        else:
            assert (row.blank_image_answer, row.blank_image_loss) == (None, None)
    assert len(runner.questions) == 6 + 6 + 6, "a question without images is asked once"
    assert all("<image>" not in text for _, text in runner.questions)


def test_scope_none_asks_nothing_and_measures_losses_of_all(lake: Lake) -> None:
    questions = select_held_out_questions(lake, ["general"], 0.999999, per_category=2)
    runner = RecordingRunner()
    rows = list(local_worker.answer_questions(lake, runner, questions, answer_scope="none"))
    assert runner.questions == []
    assert all(row.answer is None and row.loss is not None for row in rows)


def test_a_torn_line_is_skipped_and_the_file_is_rewritten_whole(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    good = {"question_id": "a" * 32, "answer": "red", "blank_image_answer": None, "loss": 1.0, "blank_image_loss": None}
    out.write_text(json.dumps(good) + "\n" + json.dumps(good)[:25], encoding="utf-8")
    known = local_worker.read_answers(out)
    assert set(known) == {"a" * 32}
    local_worker._write_answers(out, known)
    assert out.read_text(encoding="utf-8").endswith("}\n")


def test_answered_questions_are_not_asked_again_and_launch_no_worker(lake: Lake, home: Path) -> None:
    checkpoint = Checkpoint("alignment", load_settings().checkpoints_dir / "alignment" / "abc", "v1", 512)
    launched: list[list[str]] = []

    def launch(command: Sequence[str], folder: Path) -> None:
        launched.append(list(command))
        job = json.loads(Path(command[-1]).read_text(encoding="utf-8"))
        (task,) = job["tasks"]
        out = Path(task["answers_path"])
        wanted = [local_worker.HeldOutQuestion.from_dict(q) for q in job["questions"]]
        rows = local_worker.answer_questions(
            lake,
            RecordingRunner(),
            [q for q in wanted if q.question_id not in local_worker.read_answers(out)],
            answer_scope="all",
        )
        lines = "".join(local_worker._format_line(row) for row in rows)
        with out.open("a", encoding="utf-8") as file:
            file.write(lines)

    def ask(count: int) -> dict:
        questions = select_held_out_questions(lake, ["general"], 0.999999, per_category=count)
        answers = evaluate.run_local_worker(lake, questions, [(checkpoint, "all")], max_new_tokens=8, launch=launch)
        return dict(answers["alignment"])

    first = ask(2)
    assert len(first) == 2 and len(launched) == 1
    assert ask(2) == first and len(launched) == 1, "all was known"
    assert first.items() <= ask(5).items() and len(launched) == 2


def test_a_job_without_pending_questions_loads_no_model(lake: Lake, tmp_path: Path) -> None:
    (question,) = select_held_out_questions(lake, ["general"], 0.999999, per_category=1)
    out = tmp_path / "answers.jsonl"
    out.write_text(
        local_worker._format_line(local_worker.ModelAnswer(question.question_id, "red", None, 1.0, None)),
        encoding="utf-8",
    )
    job = tmp_path / "job.json"
    task = local_worker.CheckpointTask(tmp_path / "no-such-export", out, answer_scope="all")
    local_worker.write_job(job, lake_root=lake.root, questions=[question], tasks=[task], max_new_tokens=8)
    assert local_worker.main([str(job)]) == 0


def test_preview_questions_have_images_and_belong_to_the_suite(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = (PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8")
    held = home / "held.yaml"
    held.write_text(yaml.safe_dump(yaml.safe_load(demo) | {"holdout_fraction": 0.7}), encoding="utf-8")
    monkeypatch.setenv("MVL_PROFILE", str(held))
    suite = evaluate.select_profile_questions(lake, QUESTIONS_PER_CATEGORY)
    preview = evaluate.select_preview_questions(lake)
    assert preview and all(question.image_ids for question in preview)
    assert len({question.category for question in preview}) == len(preview)
    assert {q.question_id for q in preview} <= {q.question_id for q in suite}
