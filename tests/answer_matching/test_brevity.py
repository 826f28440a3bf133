"""Requests for a short answer: which sentences are ones, and what is left alone."""

from __future__ import annotations

import pytest

from mvl_assets.answer_matching.brevity import strip_brevity_request

QUESTION = "What comes after spring?\nA. summer\nB. winter"


@pytest.mark.parametrize(
    "request_text",
    [
        "Answer the question using a single word or phrase.",
        "Answer with the option's letter from the given choices directly.",
        "Answer with the letter of the choice.",
        "Answer with the letter.",
        "Please provide a short answer.",
        "Give a very brief answer.",
        "Your response must be concise.",
        "Keep it short and to the point.",
        "Ensure brevity in your answer.",
        "Short answer required.",
        "Be succinct.",
        "Answer briefly",
    ],
)
def test_a_request_for_a_short_answer_is_dropped(request_text: str) -> None:
    assert strip_brevity_request(f"{QUESTION}\n{request_text}") == QUESTION
    assert strip_brevity_request(f"Is it red? {request_text} ") == "Is it red?"
    assert strip_brevity_request(request_text) == request_text


@pytest.mark.parametrize(
    "question",
    [
        QUESTION,
        "Look at the sign. Which letter comes first?",
        "This is a bar chart. Give the letter on the tallest bar.",
        "A photo is shown. Write a short story about it.",
        "There is a table. Provide a short description of the region.",
        "The answer is short.",
        "Find x.",
        "What is good advice?\nA. talk on\nB. be brief",
    ],
)
def test_other_questions_stay(question: str) -> None:
    assert strip_brevity_request(question) == question
