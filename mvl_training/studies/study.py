"""A study as a value: arms that override settings of profile and recipe, seeds, a budget, and what is evaluated.

A study is a YAML file in `studies/` of the project or of this package (by name), or anywhere (by path). Keys of
overrides are dotted: `mixture.shares.chart`, `keep.rule`, `recipe.stages.single_image.learning_rates.language`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from mvl_assets.common.arm_address import ArmId, is_arm_name
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.project import find_own_dir, list_files
from mvl_assets.config.strict_yaml import StrictModel, read_document
from mvl_assets.errors import MvlError
from mvl_training.evaluation.benchmarks.paper_protocol import DEFAULT_PROTOCOL, Protocol

STUDIES_DIR = Path(__file__).parent / "shipped"
MAX_RUNS = 100
HELD_OUT = "held_out"
LAKE_KEY = "lake"

Overrides = dict[str, Any]


class Budget(StrictModel):
    """What every arm is trained on, by training stage; a stage that is not named takes all rows of its mixture.

    Attributes:
        samples: Rows of the mixture, each trained on once.
        target_tokens: Tokens that the loss is taken on: training ends with the step that reaches them.
    """

    samples: dict[TrainingStage, int] = Field(default_factory=dict)
    target_tokens: dict[TrainingStage, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _validate_stages(self) -> Budget:
        if both := sorted(self.samples.keys() & self.target_tokens.keys()):
            raise ValueError(f"{', '.join(both)}: give samples or target_tokens, not both")
        if any(n <= 0 for n in (*self.samples.values(), *self.target_tokens.values())):
            raise ValueError("a budget is above 0")
        return self


class Study(StrictModel):
    """A study.

    Attributes:
        name: Its name: also that of its tables and of its folder.
        description: The question that it asks.
        recipe: The recipe of all arms; null: the profile's.
        settings: Overrides of every arm.
        arms: Overrides by arm; they go over `settings`.
        baseline: The arm that the others are compared with; null: the first.
        seeds: Each arm is mixed and trained with each of them.
        stages: Training stages; null: all of the recipe.
        budget: What every arm is trained on.
        rewritten_sources_only: Take only sources that are rewritten (group B).
        suites: What the last checkpoint of each arm is asked: `held_out`, and suites of benchmarks.
        protocol: How benchmarks are asked: `default`, or `paper`.
        questions_per_category: Held-out questions of each category, at most.
    """

    name: str
    description: str = ""
    recipe: str | None = None
    settings: Overrides = Field(default_factory=dict)
    arms: dict[str, Overrides]
    baseline: str | None = None
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    stages: list[TrainingStage] | None = None
    budget: Budget = Budget()
    rewritten_sources_only: bool = False
    suites: list[str] = Field(default=[HELD_OUT], min_length=1)
    protocol: Protocol = DEFAULT_PROTOCOL
    questions_per_category: int = Field(default=100, gt=0)

    @model_validator(mode="after")
    def _validate_arms(self) -> Study:
        for name in (self.name, *self.arms):
            if not is_arm_name(name):
                raise ValueError(f"{name!r}: names have letters, digits, `.`, `_` and `-`, and begin with the former")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is none of the arms ({', '.join(self.arms)})")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds {self.seeds}: each once, and from 0")
        if len(self.arms) * len(self.seeds) > MAX_RUNS:
            raise ValueError(f"{len(self.arms)} arms with {len(self.seeds)} seeds: {MAX_RUNS} in all at most")
        return self

    @property
    def baseline_arm(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))

    def list_runs(self) -> list[ArmId]:
        """Return all arms with all seeds: the first seed of every arm comes first."""
        return [ArmId(self.name, arm, seed) for seed in self.seeds for arm in self.arms]

    def get_overrides(self, arm: str) -> Overrides:
        """Return the overrides of an arm, those of all arms included."""
        return self.settings | self.arms[arm]

    def get_lake(self, arm: str) -> str | None:
        """Return the other lake that an arm is made of, as the study writes it; None: the project's."""
        return self.get_overrides(arm).get(LAKE_KEY)

    def list_lakes(self) -> list[str | None]:
        """Return the lakes that arms are made of."""
        return list(dict.fromkeys(self.get_lake(arm) for arm in self.arms))

    def to_dict(self) -> dict[str, Any]:
        """Return the study as plain data, which `parse_study` reads."""
        return self.model_dump(mode="json")


def list_studies() -> dict[str, Path]:
    """Return the files of the package's studies and the project's own by the name of the study."""
    files = list_files(STUDIES_DIR, find_own_dir("studies"), "*.yaml")
    return {name.removesuffix(".yaml"): path for name, path in files.items()}


def find_study_file(name_or_path: str) -> Path | None:
    """Return the file of a study by its name, or by its path; None if there is none of that name."""
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    return list_studies().get(name_or_path)


def load_study(path: Path) -> Study:
    """Read a study from its file.

    Raises:
        MvlError: It cannot be read, or has a mistake; names file, line and key.
    """
    hint = "correct the file; docs/studies.md explains the keys"
    document = read_document(path, hint=hint)
    study = document.validate(Study, hint=hint)
    if path.stem != study.name:
        raise MvlError(f"{path}: the study is named {study.name}, its file {path.stem}", hint="give both one name")
    return study


def parse_study(data: Mapping[str, Any], source: str) -> Study:
    """Build a study from plain data.

    Raises:
        MvlError: The data has mistakes; names the first.
    """
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise MvlError(f"{source}: {f'{key}: ' if key else ''}{detail['msg'].removeprefix('Value error, ')}") from error


def require_study_file(name: str) -> Path:
    """Return the file of a study.

    Raises:
        MvlError: There is none.
    """
    path = find_study_file(name)
    if path is None or not path.is_file():
        names = sorted(list_studies())
        raise MvlError(
            f"there is no study {name!r}", hint=f"{format_suggestion(name, names)}known: {', '.join(names)}, or --vary"
        )
    return path


def build_varied_study(name: str, variations: Sequence[str]) -> Study:
    """Return the study of `--vary KEY=VALUE,VALUE`: one arm per value, and per combination where several keys vary.

    Raises:
        MvlError: A variation cannot be read.
    """
    keys, value_lists = [], []
    for variation in variations:
        key, separator, values = variation.partition("=")
        if not separator or not key or not values:
            raise MvlError(f"--vary {variation}: no key and values", hint="write KEY=VALUE,VALUE,...")
        keys.append(key.strip())
        value_lists.append([parse_value(value) for value in values.split(",")])
    arms = {
        "_".join(_format_value(key, value, len(keys)) for key, value in zip(keys, values, strict=True)): dict(
            zip(keys, values, strict=True)
        )
        for values in itertools.product(*value_lists)
    }
    return parse_study({"name": name, "arms": arms, "description": f"vary {', '.join(keys)}"}, f"study {name}")


def _format_value(key: str, value: Any, n_keys: int) -> str:
    text = "".join(character if character.isalnum() or character in "._-" else "-" for character in str(value))
    return f"{key.rpartition('.')[2]}-{text}" if n_keys > 1 or not text[:1].isalnum() else text


def parse_value(text: str) -> Any:
    """Return the value of a word of the command line, as YAML reads it.

    Raises:
        MvlError: It is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MvlError(f"{text!r} is not a value of YAML") from error
