"""A mixture as LLaVA training JSON."""

from __future__ import annotations

from mvl_assets.export.llava_json import _build_entry


def build_row(question: str, image_ids: list[str], video: dict | None = None) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "The tag <video> ends it."}]
    return {"row_id": "r1", "source": "s", "image_ids": image_ids, "video": video, "conversations": turns}


def test_entry_names_one_image_as_a_string_and_several_as_a_list() -> None:
    paths = {"a": "images/a.png", "b": "images/b.png"}
    assert _build_entry(build_row("<image>?", ["a"]), paths)["image"] == "images/a.png"
    assert _build_entry(build_row("<image><image>?", ["a", "b"]), paths)["image"] == ["images/a.png", "images/b.png"]
    assert "image" not in _build_entry(build_row("?", []), paths)


def test_entry_of_a_video_has_a_marker_per_frame_in_the_question_only() -> None:
    row = build_row("<video>\nWhat is the tag <video>?", ["a", "b"], {"name": "v.mp4", "seconds": [0.0, 1.0]})
    human, gpt = _build_entry(row, {"a": "1.jpg", "b": "2.jpg"})["conversations"]
    assert human["value"] == "<image><image>\nWhat is the tag <video>?"
    assert gpt["value"] == "The tag <video> ends it."
