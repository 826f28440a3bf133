"""Recommendations by means within samples and their standard errors."""

from __future__ import annotations

import pytest

from mvl_assets.scoring.answer_kinds import classify_answer
from mvl_assets.scoring.scores import ScoreError, Scores, parse_scores
from mvl_assets.scoring.summary import ScoreChange, suggest_rows

SCHEMA = {"properties": {"content": {"type": "string"}, "relevance": {"type": "string"}}}


def change(difference: float, standard_error: float | None = 0.05) -> ScoreChange:
    return ScoreChange(3.0, 3.0 + difference, difference, standard_error)


@pytest.mark.parametrize(
    ("n_samples", "content", "relevance", "beginning"),
    [
        (29, 0.5, 0.5, "too few samples"),
        (1000, 0.3, 0.2, "take the rewrites: rewriting raises content by 0.30 and relevance by 0.20"),
        (1000, 0.3, 0.05, "take the rewrites: rewriting raises content by 0.30"),
        (1000, 0.3, -0.5, "take the originals: rewriting lowers relevance by 0.50, though it raises content"),
        (1000, -0.2, 0.0, "take the originals: rewriting lowers content by 0.20"),
        (1000, 0.09, -0.09, "no difference beyond chance"),
    ],
)
def test_a_loss_of_relevance_outweighs_a_gain_of_content(
    n_samples: int, content: float, relevance: float, beginning: str
) -> None:
    changes = {"content": change(content), "relevance": change(relevance)}
    assert suggest_rows(n_samples, changes).startswith(beginning)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("B", "option"),
        ("(c)", "option"),
        ("B. The second one", "option"),
        ("A red car", "phrase"),
        ("Yes.", "yes or no"),
        ("12.5 %", "number"),
        ("$1,200", "number"),
        ("blue", "phrase"),
        ("The car is red. It stands in front of a garage.", "sentences"),
        ("First, read the bars. Then, add them: 3 + 4. Therefore, it is 7.", "steps"),
        ("1. Read the bars.\n2. Add them.", "steps"),
        ("```html\n<p>x</p>\n```", "code"),
        ("", "phrase"),
    ],
)
def test_an_answer_has_a_form(answer: str, kind: str) -> None:
    assert classify_answer(answer) == kind


def test_the_form_of_a_long_hostile_answer_is_found_at_once() -> None:
    assert classify_answer("1" * 200_000 + "x") == "phrase"
    assert classify_answer("1 , " * 50_000 + "?") == "sentences"
    assert classify_answer("x" + "\n " * 100_000 + "y") == "phrase"


@pytest.mark.parametrize("text", ['{"content": "4", "relevance": "5"}', "<content>4</content><relevance>5</relevance>"])
def test_scores_are_read(text: str) -> None:
    assert parse_scores(SCHEMA, text, "stop") == Scores(4, 5)


@pytest.mark.parametrize(
    ("text", "finish_reason", "code"),
    [
        ('{"content": "4"}', "stop", "no_score"),
        ('{"content": "0", "relevance": "5"}', "stop", "no_score"),
        ('{"content": true, "relevance": [5]}', "stop", "no_score"),
        ('{"content": "٤", "relevance": "5"}', "stop", "no_score"),
        ('{"content": "' + "9" * 5000 + '", "relevance": "5"}', "stop", "no_score"),
        ('{"content": "4", "relevance": "5"}', "length", "length"),
        ('{"content": "4", "relevance": "5"}', "content_filter", "not_finished"),
    ],
)
def test_an_answer_without_scores_is_an_error(text: str, finish_reason: str, code: str) -> None:
    with pytest.raises(ScoreError) as caught:
        parse_scores(SCHEMA, text, finish_reason)
    assert caught.value.code == code
