"""Prompts of lmms-eval's tasks, replaced by those of the paper's copy; without lmms-eval, on what a task offers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mvl_training.evaluation.lmms import run
from mvl_training.evaluation.lmms.run import TaskError, apply_prompt


def _task(**texts: str) -> SimpleNamespace:
    config = SimpleNamespace(task="t", doc_to_messages=print)
    return SimpleNamespace(config=config, lmms_eval_specific_kwargs=texts or None)


def test_texts_around_the_question_are_replaced_and_the_order_of_images_is_kept() -> None:
    task = _task(pre_prompt="Look: ", post_prompt="\nAnswer:")
    apply_prompt(task, {"post_prompt": "\nBest option: ("}, images_first=False)
    assert task.lmms_eval_specific_kwargs == {"pre_prompt": "Look: ", "post_prompt": "\nBest option: ("}
    assert task.config.doc_to_messages is print


def test_without_messages_of_its_own_lmms_eval_lets_a_task_begin_with_its_images() -> None:
    task = _task()
    apply_prompt(task, {}, images_first=True)
    assert task.config.doc_to_messages is None


def test_a_text_that_the_task_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.metadata, "version", lambda _: "0.7.3")
    with pytest.raises(TaskError, match=r"t of lmms-eval 0\.7\.3 has no post_prompt"):
        apply_prompt(_task(), {"post_prompt": "x"}, images_first=False)
