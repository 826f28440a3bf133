"""Paths with fields in them: what they match, and what their fields are."""

from __future__ import annotations

import pytest

from mvl_assets.common.path_template import format_glob, parse_path


@pytest.mark.parametrize(
    ("template", "path", "fields"),
    [
        ("{split}/labels/{name}.json", "train/labels/7.json", {"split": "train", "name": "7"}),
        ("{split}/labels/{name}.json", "train/other/7.json", {}),
        ("{split}_{year}.csv", "val_2017.csv", {"split": "val", "year": "2017"}),
        ("{split}/{split}.csv", "val/val.csv", {"split": "val"}),
        ("{split}/{split}.csv", "val/train.csv", {}),
        ("**/{name}.json", "a/b/7.json", {"name": "7"}),
        ("**/{name}.json", "7.json", {"name": "7"}),
        ("{x}/*.js[o]n", "a/7.json", {"x": "a"}),
        ("*.json", "7.json", {}),
    ],
)
def test_fields_are_parts_of_a_path(template: str, path: str, fields: dict[str, str]) -> None:
    assert parse_path(template, path) == fields


def test_a_field_is_a_star_of_the_glob() -> None:
    assert format_glob("{split}/**/{name}.json") == "*/**/*.json"
