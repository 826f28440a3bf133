"""What is known of a conversation's words: lengths, repetition, language."""

from __future__ import annotations

import pytest

from mvl_assets.common import text_facts
from mvl_assets.common.text_facts import describe_conversation, identify_language

ENGLISH = "What is the highest value in this chart of the year?"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        ("how many dogs sit on a bench", "en"),
        ("Was ist auf dem Bild zu sehen? Ein Hund läuft über eine Wiese.", "de"),
        ("¿Qué animal aparece en la imagen y de qué color es?", "es"),
        ("这张图片里有什么？", "zh"),
        ("На картинке изображена собака, которая бежит по зелёной траве возле дома.", "ru"),
        ("12", None),
        ("x = 3 y^2 + 7", None),
        ("A. 12 B. 15 C. 18", None),
        ("", None),
    ],
)
def test_language_is_known_or_said_to_be_unknown(text: str, language: str | None) -> None:
    assert identify_language(text) == language


def test_plain_english_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_facts, "_load_identifier", lambda: pytest.fail("the model was loaded"))
    assert identify_language(ENGLISH) == "en"


def test_lengths_and_repetition_leave_out_markers() -> None:
    facts = describe_conversation(
        [
            {"from": "human", "value": f"<image>\n{ENGLISH}"},
            {"from": "gpt", "value": "seven, seven, seven, seven"},
        ]
    )
    assert facts == {
        "question_chars": len(ENGLISH) - 1,
        "answer_chars": len("seven seven seven seven"),
        "type_token_ratio": 0.25,
        "language": "en",
    }
