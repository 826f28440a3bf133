"""The options of commands that change a study: what all its arms have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_training.studies.study import Study, parse_study, parse_value

Command = Callable[..., Any]


def add_study_options(function: Command) -> Command:
    """Add the options that change all arms of a study; `apply_options` takes their values by name."""
    options = [
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=V", help="A setting of all arms; may be repeated."
        ),
        click.option("--recipe", metavar="NAME", help="Train all arms by this recipe."),
        click.option(
            "--stage", "stages", multiple=True, type=click.Choice(TRAINING_STAGES), help="Train only this stage."
        ),
        click.option("--seeds", type=click.IntRange(1, 100), help="How many seeds, from 0."),
        click.option("--samples", multiple=True, metavar="STAGE=N", help="Budget of a training stage, in rows."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def apply_options(
    study: Study,
    *,
    settings: Sequence[str],
    recipe: str | None,
    stages: Sequence[str],
    seeds: int | None,
    samples: Sequence[str],
) -> Study:
    """Return the study with the changes that the options say.

    Raises:
        MvlError: A value is none of YAML, or the changed study has a mistake.
        click.UsageError: An option lacks its key or its value.
    """
    data = study.to_dict()
    data["settings"] |= {key: parse_value(value) for key, value in map(_split_pair, settings)}
    data["budget"]["samples"] |= {stage: parse_value(value) for stage, value in map(_split_pair, samples)}
    data |= {"recipe": recipe} if recipe else {}
    data |= {"stages": list(stages)} if stages else {}
    data |= {"seeds": list(range(seeds))} if seeds else {}
    return parse_study(data, f"study {data['name']}")


def _split_pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key or not value:
        raise click.UsageError(f"{text!r}: write KEY=VALUE")
    return key, value
