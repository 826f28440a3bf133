"""The contrast pairs: good halves are true of their images and bad halves are not, by the images' own descriptions."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_assets.judging.probes.build import build_contrast_pairs
from mvl_assets.judging.probes.contrast_pairs import (
    PROBE_FAMILIES,
    PROBE_FAULTS,
    ContrastPair,
    ProbeQAPair,
    load_written_pairs,
)
from mvl_assets.judging.probes.images import render_probe_png
from mvl_assets.media.drawing import COLOURS, SHAPES

PAIRS = build_contrast_pairs()
WRITTEN = load_written_pairs()
BUILT = PAIRS[: -len(WRITTEN)]
EQUATION = re.compile(r"(\d+(?:\.\d+)?) ([-+*]) (\d+(?:\.\d+)?) = (\d+(?:\.\d+)?)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
MENTION = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


def leaves(value: Any) -> Iterator[str]:
    """Every text and number in the description of an image."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(key)
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield str(value)


def equations(text: str) -> list[bool]:
    """Whether each calculation of a text is right."""
    operators = {"+": float.__add__, "-": float.__sub__, "*": float.__mul__}
    return [
        abs(operators[sign](float(a), float(b)) - float(result)) < 0.005
        for a, sign, b, result in EQUATION.findall(text)
    ]


def unsupported_numbers(text: str, image: Mapping[str, Any]) -> set[str]:
    """Numbers that neither the image has nor a calculation gives."""
    known = {number for leaf in leaves(image) for number in NUMBER.findall(leaf)}
    known |= {result for *_, result in EQUATION.findall(text)}
    # What is known without the image: a half-turn, two sides of each length, a note.
    return set(NUMBER.findall(text)) - known - {"180", "2", "20"}


def whole(half: ProbeQAPair) -> str:
    return f"{half.question}\n{half.answer}"


def of(*families: str, fault: str | None = None) -> list[ContrastPair]:
    return [pair for pair in BUILT if pair.family in families and fault in (None, pair.fault)]


def test_every_family_has_pairs_of_every_fault_and_they_are_always_the_same():
    counts = Counter((pair.family, pair.fault) for pair in PAIRS)
    assert len(PAIRS) >= 200
    assert all(counts[family, fault] >= 5 for family in PROBE_FAMILIES for fault in PROBE_FAULTS)
    assert build_contrast_pairs() == PAIRS
    assert len({whole(half) + str(pair.image) for pair in PAIRS for half in (pair.good, pair.bad)}) == 2 * len(PAIRS)


def test_the_fault_alone_tells_the_halves_apart():
    for pair in PAIRS:
        assert pair.false_part in whole(pair.bad), pair
        assert pair.false_part not in whole(pair.good), pair
        assert pair.reason.endswith(".") and pair.reference
        assert pair.good.question == pair.bad.question or pair.fault in ("off_image", "unseen_content")
        assert 0.3 < len(pair.good.answer) / len(pair.bad.answer) < 3 or pair.fault in ("off_image", "off_question")


def test_every_calculation_of_a_good_half_is_right():
    for pair in PAIRS:
        assert all(equations(pair.good.answer)), pair
    assert sum(len(equations(pair.good.answer)) for pair in PAIRS) > 80


def test_a_wrong_step_is_wrong_and_ends_with_the_right_result():
    for pair in BUILT:
        if pair.fault == "wrong_step":
            assert pair.good.answer.split()[-1] == pair.bad.answer.split()[-1], pair
    for pair in of("chart", "ocr", "code", fault="wrong_step"):
        assert False in equations(pair.bad.answer), pair


def test_the_numbers_of_good_halves_are_in_the_image_and_misread_ones_are_not():
    for pair in of("chart", "ocr", "math"):
        assert not unsupported_numbers(pair.good.answer, pair.image), pair
    for pair in of("chart", "ocr", "math", fault="misread_content"):
        assert unsupported_numbers(pair.bad.answer, pair.image), pair


def test_quotations_of_good_halves_are_lines_of_the_page():
    quoted = 0
    for pair in of("ocr"):
        for quotation in re.findall(r'"([^"]+)"', pair.good.answer):
            quoted += 1
            assert quotation in pair.image["lines"], pair
        if pair.fault == "misread_content":
            assert not set(re.findall(r'"([^"]+)"', pair.bad.answer)) <= set(pair.image["lines"])
    assert quoted >= 15


def test_shapes_of_good_halves_are_in_the_image_and_unseen_ones_are_not():
    for pair in of("general", "caption", "detection"):
        drawn = {(colour, shape) for colour, shape, _, _ in pair.image["objects"]}
        assert set(MENTION.findall(whole(pair.good))) <= drawn, pair
        if pair.fault == "unseen_content":
            assert set(MENTION.findall(pair.bad.answer)) - drawn, pair


def test_names_of_good_halves_are_in_the_image_and_unseen_ones_are_not():
    for pair in of("chart", "ocr", "domain", fault="unseen_content"):
        text = " ".join(leaves(pair.image))
        assert pair.false_part not in text, pair
        names = pair.good.answer.removesuffix(".").replace(" and ", ", ").split(", ")[1:]
        assert names and all(name in text for name in names), pair


def test_arrows_of_good_halves_lead_where_they_are_drawn():
    for pair in of("domain"):
        links = pair.image["links"]
        steps = set(pairwise(links))
        assert set(re.findall(r"leads from the (.+?) to the (\w[\w ]*?)(?:,|\.)", pair.good.answer)) <= steps
        if pair.fault == "misread_content":
            (claimed,) = re.findall(r"leads from the (.+?) to the (\w[\w ]*?),", pair.bad.answer)
            assert claimed not in steps


def test_the_program_prints_what_the_good_half_says(capsys: pytest.CaptureFixture[str]):
    for pair in of("code", fault="misread_content"):
        exec("\n".join(pair.image["lines"][1:]), {})
        printed = capsys.readouterr().out.strip()
        assert f"It prints {printed}." in pair.good.answer
        assert f"It prints {printed}." not in pair.bad.answer


@pytest.mark.parametrize("kind", sorted({pair.image["kind"] for pair in PAIRS}))
def test_probe_images_are_deterministic_and_large_enough_for_a_model(kind: str):
    for image in list({str(p.image): p.image for p in PAIRS if p.image["kind"] == kind}.values())[:4]:
        data = render_probe_png(image)
        assert data == render_probe_png(image)
        with Image.open(io.BytesIO(data)) as drawn:
            assert min(drawn.size) >= 224
            assert len(drawn.getcolors(1 << 20) or []) > 2


def test_probe_files_with_errors_are_refused_with_a_reason(tmp_path: Path):
    with pytest.raises(KeyError, match="poem"):
        render_probe_png({"kind": "poem"})
    path = tmp_path / "written.yaml"
    path.write_text("images: {}\npairs:\n  - {family: ocr, fault: rude, reason: w, image: p}\n", encoding="utf-8")
    with pytest.raises(MvlError, match=r"written.yaml:3: pairs.0.fault"):
        load_written_pairs(path)
    half = "{question: q, answer: a}"
    path.write_text(
        "images: {}\npairs:\n  - {family: ocr, fault: off_image, reason: w, false_part: q, reference: a, image: p, "
        f"good: {half}, bad: {half}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(MvlError, match="no image is described for p"):
        load_written_pairs(path)
