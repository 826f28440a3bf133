"""A trained model looks at the image: shown through the real training process, export and runner."""

from __future__ import annotations

import json
from pathlib import Path

from mvl_training.evaluation.student_runner import StudentRunner
from mvl_training.trainer.export_main import export_stage
from mvl_training.trainer.run_files import format_checkpoint_name
from tests.training import tiny_model as small


def test_the_loss_of_the_answer_is_lower_with_the_true_image_than_with_another(
    seeing: tuple[Path, list[small.DrawnSample]],
) -> None:
    folder, unseen = seeing
    runner = StudentRunner(folder)
    others = [*unseen[1:], unseen[0]]
    true = runner.compute_losses(unseen)
    shuffled = runner.compute_losses([(other[0], q, a) for other, (_, q, a) in zip(others, unseen, strict=True)])
    mean_true, mean_shuffled = sum(true) / len(true), sum(shuffled) / len(shuffled)
    assert mean_true + 0.3 < mean_shuffled, f"{mean_true:.3f} with the true image, {mean_shuffled:.3f} with another"


def test_the_trained_model_answers_about_images_it_never_saw(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, unseen = seeing
    answers = StudentRunner(folder, max_new_tokens=8).answer_questions([(p, q) for p, q, _ in unseen])
    n_correct = sum(given == answer for given, (_, _, answer) in zip(answers, unseen, strict=True))
    assert n_correct > len(unseen) // 2, f"{n_correct} of {len(unseen)} are correct; guessing gives {len(unseen) // 4}"


def test_the_result_and_the_export_name_steps_and_run(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, _ = seeing
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["n_steps"] == small.SEEING_STEPS
    assert result["last_loss"] < result["first_loss"]
    assert export_stage(folder).is_within_tolerance
    provenance = StudentRunner(folder).describe()
    assert (provenance["stage"], provenance["step"], provenance["run_hash"]) == (
        "single_image",
        small.SEEING_STEPS,
        result["run_hash"],
    )
    assert provenance["recipe"]["name"] == "tiny"


def test_a_training_checkpoint_gives_the_losses_of_its_export(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, unseen = seeing
    from_export = StudentRunner(folder / "export").compute_losses(unseen[:3])
    assert (
        StudentRunner(folder / "checkpoints" / format_checkpoint_name(small.SEEING_STEPS)).compute_losses(unseen[:3])
        == from_export
    )
