"""Identities of fixed inputs, pinned: a rename that moved one would ask, and pay for, every stored answer again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.sample_facts import compute_fingerprint
from mvl_assets.config.prompts import Prompt, compute_criteria_hash, load_prompt_file
from mvl_assets.inference.request import (
    TEXT_OUTPUT,
    ModelRef,
    OutputFormat,
    Request,
    build_choice_output,
    build_json_output,
)
from mvl_assets.ingest.row_numbering import RowNumbering, compute_row_key
from mvl_assets.lake_queries.removal import tombstones
from mvl_assets.readers.format import RowKey
from mvl_assets.rewriting.build import build_requests
from mvl_training.evaluation.held_out.questions import build_question, compute_suite_hash
from mvl_training.recipe import load_recipe

IMAGES = ["a" * 32, "b" * 32]
TURNS = [
    {"from": "human", "value": "<image>\nHow many bars are red?"},
    {"from": "gpt", "value": "3"},
    {"from": "human", "value": "Which is the tallest?"},
    {"from": "gpt", "value": "The blue one."},
]
SAMPLE: dict[str, Any] = {
    "sample_id": "1" * 32,
    "version_id": "2" * 32,
    "source": "chart2text",
    "category": "chart",
    "conversations": TURNS,
    "image_ids": IMAGES[:1],
    "video": None,
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}
REWRITE = """---
role: rewrite
family: {family}
unit: {per}
modality: vision
no_image_note: The picture is not available.
output: {output}
sampling: {{temperature: 0.2, top_p: 0.95, max_tokens: 512}}
retry_sampling: {{temperature: 0.8}}
inputs: [{inputs}]
version: 3
note: fixed for a test
---
Write it anew.
{{{{pictures}}}}
Here it is:
<sample>
{slots}
</sample>
"""
JUDGE = """---
role: judge
family: general
modality: vision
no_image_note: The picture is not available.
output: choice
options: ["Yes", "No"]
sampling: {temperature: 0, top_p: 1, max_tokens: 1}
inputs: [conversation]
criteria: {correct: "Is it right?", relevant: "Is it about the picture?"}
version: 1
note: fixed for a test
---
{{pictures}}
<sample>
{{conversation}}
</sample>
{{criterion}} Yes or No?
"""


def prompt_of(folder: Path, family: str, per: str, inputs: str) -> Prompt:
    slots = "\n".join(f"{{{{{name.strip()}}}}}" for name in inputs.split(","))
    file = folder / f"rewrite_{family}.md"
    file.write_text(REWRITE.format(family=family, per=per, output="text", inputs=inputs, slots=slots))
    return load_prompt_file(file)[0]


def computed(folder: Path) -> dict[str, str]:
    model = ModelRef("org/model", "rev1")
    blind = ModelRef("org/text", "rev1", supports_images=False)
    small = dataclasses.replace(model, max_image_side=896)
    message = {"role": "user", "content": "What is it?"}
    parts = [{"type": "text", "text": "Look:"}, {"type": "image", "image": IMAGES[0]}]
    shown = {"role": "user", "content": parts}

    def key(
        message: dict[str, Any] = message,
        model: ModelRef = model,
        output: OutputFormat = TEXT_OUTPUT,
        **sampling: float,
    ) -> str:
        return Request((message,), model, {"max_tokens": 8, **sampling}, "p", "h" * 32, output).key

    pair = prompt_of(folder, "chart", "pair", "question, answer")
    sample = prompt_of(folder, "ocr", "sample", "pairs")
    (folder / "judge_general.md").write_text(JUDGE)
    criteria = load_prompt_file(folder / "judge_general.md")
    pins = {
        "digest": compute_digest("source", 1, {"b": [True, None], "a": "ü"}),
        "request text": key(),
        "request sampling": key(temperature=0.2, top_p=0.9),
        "request image": key(shown),
        "request max side": key(shown, small),
        "request max side without image": key(model=small),
        "request json": key(output=build_json_output(SCHEMA)),
        "request choice": key(output=build_choice_output("Yes", "No")),
        "prompt pair": pair.hash,
        "prompt sample": sample.hash,
        "prompt criterion correct": criteria[0].hash,
        "prompt criterion relevant": criteria[1].hash,
        "criteria": compute_criteria_hash(criteria),
        "duplicate fingerprint": compute_fingerprint(TURNS, IMAGES),
        "tombstone content": tombstones.compute_unlicensed_content_hash({**SAMPLE, "license": "mit"}),
        "row key native id": compute_row_key("a.json", 3, "id-7").hex(),
        "row key position": compute_row_key("a.json", 3, None).hex(),
    }
    for number, ask in enumerate([*build_requests(SAMPLE, pair, model), *build_requests(SAMPLE, pair, blind)]):
        pins[f"rewrite request {number}"] = ask.request.key
    pins["rewrite request of a sample"] = build_requests(SAMPLE, sample, model)[0].request.key
    rows = [RowKey("a.json", 0, "x"), RowKey("a.json", 1, "x"), RowKey("a.json", 2, None)]
    pins |= {f"sample id {n}": sample_id for n, sample_id in enumerate(RowNumbering("chart2text").generate_ids(rows))}
    question = build_question(SAMPLE)
    assert question is not None
    pins["question id"] = question.question_id
    pins["suite version"] = compute_suite_hash([question], per_category=8)
    for name in ("demo", "paper-7b"):
        recipe = load_recipe(name)
        for stage in ("alignment", "one_vision"):
            pins[f"plan inputs {name} {stage}"] = compute_digest(recipe.build_plan_inputs(stage))
            pins[f"training inputs {name} {stage}"] = compute_digest(recipe.build_training_inputs(stage))
    pins["counted content"] = compute_digest(np.arange(4, dtype=np.int64).tobytes(), b"", IMAGES)
    return pins


PINNED: dict[str, str] = {
    "digest": "4f1cca267aee1f78b82617605ed1ddac",
    "request text": "8114f7556946359b24bcec9e7047a5b1",
    "request sampling": "3136324f9b8fdf4be4c72cbdd2770182",
    "request image": "d76f2215e6fe3d583d3f49913dee4489",
    "request max side": "9b9e6a532ae245f4a107648f8aa45067",
    "request max side without image": "8114f7556946359b24bcec9e7047a5b1",
    "request json": "750d74be3c82131d9b209c39e983651a",
    "request choice": "fc95156ab5e74ecc906b04b3bada93ab",
    "prompt pair": "506af9afad828a32ac0cf2074f1145e1",
    "prompt sample": "2b3d35896f853067daf198091cace15d",
    "prompt criterion correct": "4be0675d56ad5014715b63d98f9f8b71",
    "prompt criterion relevant": "2b76e439f0f3343f9adf98a47c275e9e",
    "criteria": "0311151523cddfd295de1fec8de673a3",
    "duplicate fingerprint": "14bf7efb1d9a621f50b85247d1f836cc",
    "tombstone content": "a3517892d1d6fff0b39df93d83c28aff",
    "row key native id": "21132a91672dcd00a40e35c8d5815efb",
    "row key position": "3dd37ca9a97f433a25c880c91d28c566",
    "rewrite request 0": "fbd8a57209dc10693be804a5f04810fe",
    "rewrite request 1": "3a38846df9863b1c9335449aebc1e64b",
    "rewrite request 2": "cd88513d5ce4abdf9472f505b9ba2b4b",
    "rewrite request 3": "e30c613eef6b1beb71b461d556bc3a26",
    "rewrite request of a sample": "01cbe0494a427b4b5ae2553c4eaec7ee",
    "sample id 0": "55aad946a31271cc3cc0f64f17584528",
    "sample id 1": "f38e5ae0867ccf7cfe8f3ac131f49adb",
    "sample id 2": "c778f8531e1a69cbb63bed302ca56873",
    "question id": "6c949b087e306f40dc8cb8b96f7b78a9",
    "suite version": "797d25246131cda294c80461bc788c78",
    "plan inputs demo alignment": "55d4b2b95c68ca7664e375ca3b7cc693",
    "training inputs demo alignment": "7b1886105608dab6482efa5b6c242235",
    "plan inputs demo one_vision": "3782471589f7f594e84367802f76ed00",
    "training inputs demo one_vision": "5b0d5a4b77ea3395ba597ef7b405db34",
    "plan inputs paper-7b alignment": "fab246b9fe2a837b8b67c69090586d4e",
    "training inputs paper-7b alignment": "96d1713013f2f6e77d184dbd57d18d40",
    "plan inputs paper-7b one_vision": "c060e6358123073897ec6b78dabdab85",
    "training inputs paper-7b one_vision": "9d8f4fba6bb8daab5c541b43f2f2a4d6",
    "counted content": "b0b31c4bfef316909689b74b77dd165b",
}


@pytest.mark.parametrize("name", PINNED)
def test_an_identity_keeps_its_value(name: str, tmp_path: Path) -> None:
    assert computed(tmp_path)[name] == PINNED[name]


def test_every_identity_is_pinned(tmp_path: Path) -> None:
    assert set(computed(tmp_path)) == set(PINNED)
