"""The exemplary outputs of every family as answers of a server: all become rows, in full."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from mvl_assets.config.prompts import PROMPTS_DIR
from mvl_assets.inference.testing.fake_server import FakeServerConfig
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import profile, put, source_of
from tests.servers import serving

CATEGORIES = {
    "caption": "caption",
    "chart": "chart",
    "code": "code_math",
    "detection": "detection",
    "domain": "domain",
    "general": "general",
    "math": "code_math",
    "ocr": "ocr",
}
PAIR = re.compile(r"Question \d+: (.*?)\nAnswer \d+: (.*?)(?=\nQuestion \d+: |\Z)", re.DOTALL)
PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ,.?:]{20,}")


def read_exemplary(family: str) -> list[dict[str, Any]]:
    text = (PROMPTS_DIR / "examples" / f"rewrite_{family}.yaml").read_text(encoding="utf-8")
    return [example for example in yaml.safe_load(text) if "image" in example]


def build_turns(inputs: dict[str, str]) -> list[dict[str, str]]:
    """The conversation of a sample whose prompt has these inputs."""
    if "caption" in inputs:
        pairs = [("Describe the image.", inputs["caption"])]
    else:
        pairs = PAIR.findall(inputs["pairs"]) if "pairs" in inputs else [(inputs["question"], inputs["answer"])]
    pairs[0] = (f"<image>\n{pairs[0][0]}", pairs[0][1])
    return [turn for q, a in pairs for turn in ({"from": "human", "value": q}, {"from": "gpt", "value": a})]


def list_dialogues(answer: str, question: str | None) -> list[list[tuple[str, str]]]:
    """What an exemplary output says, read without the parser."""
    if question is not None:
        return [[(question, answer.strip())]]
    document = json.loads(answer)
    pairs = [(entry["question"], entry["answer"]) for entry in document.get("pairs", document.get("turns"))]
    return [pairs] if "turns" in document else [[pair] for pair in pairs]


@pytest.mark.parametrize("family", CATEGORIES)
def test_exemplary_outputs_become_rows_in_full(family: str, lake: Lake) -> None:
    examples = read_exemplary(family)
    source = source_of(family, CATEGORIES[family], slug=f"full_{family}")
    put(lake, source, range(len(examples)), conversations=lambda number: build_turns(examples[number]["inputs"]))
    markers = [PLAIN_TEXT.findall("\n".join(example["inputs"].values()))[0] for example in examples]
    assert len(set(markers)) == len(markers)
    answers = dict(zip(markers, (example["answer"] for example in examples), strict=True))
    with serving(FakeServerConfig(text_by_marker=answers)) as (_, endpoint):
        large = profile().model_copy(update={"prompts": None})
        report = rewrite_source(lake, source, large, run_id="r", endpoints=[endpoint])
    assert report.rejects_by_error == {}
    assert report.requests.attempts_sent == len(examples)
    expected = [
        dialogue
        for example in examples
        for dialogue in list_dialogues(example["answer"], example["inputs"].get("question"))
    ]
    rows = list(lake.get_table(report.table).iter_rows())
    written = []
    for row in rows:
        texts = [turn["value"].removeprefix("<image>\n") for turn in row["conversations"]]
        written.append(list(zip(texts[::2], texts[1::2], strict=True)))
        assert (row["task_type"] is None) == (family in {"math", "code", "ocr"})
    assert sorted(written) == sorted(expected)
