"""Contrast pairs: a good and a bad pair about one drawn image, which differ by one known fault.

Most are built from the truth of a drawing (`builders`), some are written by hand (`written.yaml`). The same pairs come
out every time, so that two judges, or a judge before and after a change of its prompt, can be compared.

| fault | the bad pair | in the paper (arXiv 2412.05237, appendix on filtering) |
|---|---|---|
| unseen_content | states something that is not in the image | OCR: graphics features that the page lacks |
| misread_content | misreads a value, text, colour, position or arrow | chart: 57 read as 54, so the results are wrong |
| wrong_step | comes to the right result by a false step | math: opposite angles are taken for supplementary |
| off_image | asks what the image cannot answer, and invents it | caption: a forecast of sales |
| off_question | states what is true, and replies to another question | its criterion "consistency"; no example |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.config.strict_yaml import iter_documents
from mvl_assets.errors import MvlError
from mvl_assets.judging.probes.images import render_probe_png

WRITTEN_FILE = Path(__file__).with_name("written.yaml")

ProbeFault = Literal["unseen_content", "misread_content", "wrong_step", "off_image", "off_question"]
PROBE_FAULTS: tuple[ProbeFault, ...] = get_args(ProbeFault)
ProbeFamily = Literal["caption", "chart", "code", "detection", "domain", "general", "math", "ocr"]
PROBE_FAMILIES: tuple[ProbeFamily, ...] = get_args(ProbeFamily)


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeQAPair(_StrictModel):
    """A question and its answer."""

    question: str
    answer: str

    @property
    def turns(self) -> list[dict[str, str]]:
        """The pair as a conversation."""
        return [{"from": "human", "value": self.question}, {"from": "gpt", "value": self.answer}]


class ContrastPair(_StrictModel):
    """A good and a bad pair about one image.

    Attributes:
        family: The prompt family, which decides the judge's prompt.
        fault: The class of what is wrong with the bad pair.
        reason: Why it is wrong, in a sentence.
        false_part: The part of the bad pair, question or answer, that the good one does not have.
        image: What the image shows.
        good: The good pair.
        bad: The bad one.
        reference: The short answer to the good question, as a source has it.
    """

    family: ProbeFamily
    fault: str
    reason: str
    false_part: str
    image: Mapping[str, Any]
    good: ProbeQAPair
    bad: ProbeQAPair
    reference: str

    def render_png(self) -> bytes:
        """Return the image."""
        return render_probe_png(self.image)


class _WrittenPair(_StrictModel):
    """A pair of the file; `image` is a name."""

    family: ProbeFamily
    fault: ProbeFault
    reason: str
    false_part: str
    image: str
    good: ProbeQAPair
    bad: ProbeQAPair
    reference: str


class _WrittenPairs(_StrictModel):
    images: dict[str, dict[str, Any]]
    pairs: list[_WrittenPair]


def load_written_pairs(path: Path = WRITTEN_FILE) -> list[ContrastPair]:
    """Return the pairs of a file.

    Raises:
        MvlError: Something in the file is wrong; names the line.
    """
    (document,) = iter_documents(path)
    try:
        written = _WrittenPairs.model_validate(document.value)
    except ValidationError as error:
        first = error.errors()[0]
        line = document.find_line(first["loc"])
        raise MvlError(f"{path}:{line}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if undescribed_images := {pair.image for pair in written.pairs} - set(written.images):
        raise MvlError(f"{path}: no image is described for {', '.join(sorted(undescribed_images))}")
    return [
        ContrastPair.model_validate({**pair.model_dump(), "image": written.images[pair.image]})
        for pair in written.pairs
    ]
