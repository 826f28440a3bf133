"""docs/glossary.md says what the stages are."""

from __future__ import annotations

from tools.glossary import GLOSSARY, render


def test_the_glossary_has_the_stages_as_the_code_declares_them() -> None:
    text = GLOSSARY.read_text(encoding="utf-8")
    assert render(text) == text, "run `python tools/glossary.py`"
