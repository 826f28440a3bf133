"""The proof that a trained model looks at the picture, through the real training process, export and runner."""

from __future__ import annotations

import json
from pathlib import Path

from mvl_training.evaluation.student_runner import StudentRunner
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
    print(
        f"\nloss with the true picture {mean_true:.3f}, with another {mean_shuffled:.3f}, "
        f"margin {mean_shuffled - mean_true:.3f}"
    )
    assert mean_true + 0.3 < mean_shuffled


def test_the_trained_model_answers_about_images_it_never_saw(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, unseen = seeing
    answers = StudentRunner(folder, max_new_tokens=8).answer_questions([(p, q) for p, q, _ in unseen])
    right = sum(said == answer for said, (_, _, answer) in zip(answers, unseen, strict=True))
    print(f"\n{right} of {len(unseen)} right; guessing gives {len(unseen) // 4}")
    assert right > len(unseen) // 2


def test_the_result_and_the_export_name_steps_and_run(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, _ = seeing
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["n_steps"] == 300
    assert result["last_loss"] < result["first_loss"]
    assert result["export_max_difference"] == 0.0
    about = StudentRunner(folder).describe()
    assert (about["stage"], about["step"], about["run_hash"]) == ("single_image", 300, result["run_hash"])
    assert about["recipe"]["name"] == "tiny"


def test_a_training_checkpoint_gives_the_losses_of_its_export(seeing: tuple[Path, list[small.DrawnSample]]) -> None:
    folder, unseen = seeing
    from_export = StudentRunner(folder / "export").compute_losses(unseen[:3])
    assert StudentRunner(folder / "checkpoints" / "step-00000300").compute_losses(unseen[:3]) == from_export
