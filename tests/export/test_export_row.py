"""The intermediate row: where markers stand."""

from __future__ import annotations

from mvl_assets.export.export_row import build_messages, split_content, strip_image_markers


def say(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def list_contents(*texts: str, n_images: int, is_video: bool = False) -> list[str]:
    return [message["content"] for message in build_messages(say(*texts), n_images, is_video=is_video)]


def test_questions_have_a_marker_for_each_image_and_answers_none() -> None:
    assert list_contents("<image>\nWhat?", "A cat.", n_images=1) == ["<image>\nWhat?", "A cat."]
    assert list_contents("What?", "A cat.", n_images=2) == ["<image>\n<image>\nWhat?", "A cat."]
    assert list_contents("<image> or <image>?", "Say <image>.", n_images=1) == ["<image> or < image>?", "Say < image>."]
    assert list_contents("<image>?", "One.", "<image>?", "Two.", n_images=2) == ["<image>?", "One.", "<image>?", "Two."]


def test_a_video_has_a_marker_for_each_frame_in_the_first_question_that_shows_it() -> None:
    texts = ("<video>\nWhat is <video>?", "The tag <video>.", "Why <video>?", "It is.")
    expected = ["<image><image>\nWhat is <video>?", "The tag <video>.", "Why <video>?", "It is."]
    assert list_contents(*texts, n_images=2, is_video=True) == expected


def test_a_text_is_split_at_its_markers() -> None:
    image = {"type": "image", "text": None}
    assert split_content("<image>\nA <image> B") == [
        image,
        {"type": "text", "text": "A "},
        image,
        {"type": "text", "text": " B"},
    ]
    assert split_content("no image") == [{"type": "text", "text": "no image"}]
    assert strip_image_markers("<image>\n<image>\nWhy <image>?") == "Why ?"
