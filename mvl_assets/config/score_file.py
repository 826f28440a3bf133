"""Scores that others gave rows: Parquet files that a profile names, joined with samples as `scores/<name>`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from mvl_assets.common.score_type import ScoreType
from mvl_assets.config.strict_yaml import StrictModel

_NAME = re.compile(r"[A-Za-z_]\w{0,59}", re.ASCII)
_TAKEN_NAMES = frozenset({"p_yes"})

KeyKind = Literal["sample_id", "native_id", "row"]


class ScoreFile(StrictModel):
    """Where scores are, and what they are scores of.

    Attributes:
        path: A Parquet file, a folder of them, or a pattern; relative to the folder of the project.
        columns: The columns to take, with what each holds.
        key: The column with the ids: those of samples or, with `source`, those that the source itself gives its rows.
            Null: row n of a file is row n of the source's file of that name, as where ratings lie beside the data.
        source: The source whose rows are meant; null where the ids are those of samples.
    """

    path: str
    columns: dict[str, ScoreType] = Field(min_length=1)
    key: str | None = "sample_id"
    source: str | None = None

    @property
    def key_kind(self) -> KeyKind:
        """What the rows are found by."""
        if self.key is None:
            return "row"
        return "sample_id" if self.source is None else "native_id"

    @model_validator(mode="after")
    def _validate_key(self) -> ScoreFile:
        if self.key is None and self.source is None:
            raise ValueError("rows without a key are those of a source's files: name the source")
        if self.key in self.columns:
            raise ValueError(f"column {self.key!r} is the key, and no score")
        return self


def check_score_names(scores: dict[str, ScoreFile]) -> None:
    """Check that scores can be named in a condition, as `name.column`.

    Raises:
        ValueError: A name has other characters than a word, or is taken.
    """
    for name, file in scores.items():
        wrong = [word for word in (name, *file.columns) if not _NAME.fullmatch(word)]
        if wrong or name in _TAKEN_NAMES:
            raise ValueError(
                f"scores: {wrong[0]!r} is no word of letters, digits and _: rename it"
                if wrong
                else f"scores: the name {name!r} is taken"
            )
