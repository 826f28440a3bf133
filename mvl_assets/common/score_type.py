"""The types of scores: what a condition over rows can compare."""

from __future__ import annotations

from typing import Literal

ScoreType = Literal["number", "text", "boolean"]
