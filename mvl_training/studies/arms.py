"""The profile and the recipe of every arm, checked before anything is spent, and written where launched processes read.

An arm may override what mixtures and training depend on. Everything before that is made once for all arms; a change of
models, prompts or sources is another lake, which an arm may name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mvl_assets.common.arm_address import ArmId
from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.mixture_sources import require_reachable_shares
from mvl_assets.config.profile import Profile
from mvl_assets.config.study_arms import LAKE_FILE, PROFILE_FILE, RECIPE_FILE, get_arm_dir, resolve_other_lake
from mvl_assets.curation.mixing import resolve_filter
from mvl_assets.curation.strata import resolve_strata
from mvl_assets.errors import MvlError
from mvl_assets.judging.keep import format_keep_condition
from mvl_assets.lake.lake import Lake
from mvl_training.recipe import Recipe, load_recipe, parse_recipe
from mvl_training.studies.study import LAKE_KEY, Study

PROFILE_KEYS = ("mixture", "where", "licences", "keep")
"""What arms may change of the profile, besides the recipe."""

RECIPE_KEY = "recipe"
SEED_KEYS = ("mixture.seed", "recipe.seed")
STORED_VERDICTS = "keep"


@dataclass(frozen=True, slots=True)
class ResolvedArm:
    """An arm of a study with one seed.

    Attributes:
        arm_id: Which.
        profile: Its profile. The recipe's name in it is of no meaning.
        recipe: Its recipe, with the steps of the budget where these are known before the rows are counted.
        keep_condition: Which rewrites its mixtures may take, in SQL.
        lake: The other lake that it is made of, as the study writes it; None: the project's.
    """

    arm_id: ArmId
    profile: Profile
    recipe: Recipe
    keep_condition: str
    lake: str | None = None

    @property
    def digest(self) -> str:
        """Digest of all that decides what its rows and its weights are, besides the tables that it reads.

        Without defaults: a setting that a later version of the program adds changes no arm.
        """
        mixing = self.profile.model_dump(
            mode="json", include={*PROFILE_KEYS, "holdout_fraction", "paper_parity"}, exclude_defaults=True
        )
        recipe = self.recipe.model_dump(mode="json", exclude_defaults=True)
        other_lake = [] if self.lake is None else [self.lake]
        return compute_digest("arm", mixing, recipe, self.keep_condition, *other_lake)

    @property
    def stages(self) -> list[TrainingStage]:
        """The training stages, in their order."""
        return self.recipe.stage_names


def resolve_arms(study: Study, profile: Profile) -> list[ResolvedArm]:
    """Return all arms with all seeds.

    Raises:
        MvlError: There are fewer than two arms, two are the same, or one has a mistake (`resolve_arm`).
    """
    if len(study.arms) < 2:
        raise MvlError(f"study {study.name}: a study compares at least two arms", hint="add one to `arms`")
    arms = [resolve_arm(study, profile, arm_id) for arm_id in study.list_runs()]
    first_arms: dict[str, str] = {}
    for arm in arms[: len(study.arms)]:
        name = first_arms.setdefault(arm.digest, arm.arm_id.arm)
        if name != arm.arm_id.arm:
            raise MvlError(
                f"study {study.name}: the arms {name} and {arm.arm_id.arm} have the same settings",
                hint="remove one of them, or give it another value",
            )
    return arms


def resolve_arm(study: Study, profile: Profile, arm_id: ArmId) -> ResolvedArm:
    """Return one arm with one seed.

    Raises:
        MvlError: A key cannot be overridden or does not exist, a value does not fit, the recipe has not all stages, or
            the budget and the arm both set the size of a mixture.
    """
    source = f"study {study.name}, arm {arm_id.arm}"
    overrides = study.get_overrides(arm_id.arm)
    _validate_keys(study, overrides, source)
    recipe_name = overrides.get(RECIPE_KEY) or study.recipe or profile.recipe
    data = profile.model_dump(mode="json")
    recipe_data = load_recipe(str(recipe_name)).to_dict()
    for key, value in overrides.items():
        if key.startswith(f"{RECIPE_KEY}."):
            _set_value(recipe_data, key.removeprefix(f"{RECIPE_KEY}."), value, f"{source}: {key}")
        elif key not in (RECIPE_KEY, LAKE_KEY):
            _set_value(data, key, value, f"{source}: {key}")
    sizes = {str(stage): n_rows for stage, n_rows in study.budget.samples.items()}
    data["mixture"].update(sizes | {"seed": arm_id.seed})
    changed_profile = _validate_profile(data, source)
    recipe = _apply_budget(study, changed_profile, recipe_data | {"seed": arm_id.seed}, source)
    keep_condition = STORED_VERDICTS
    if any(key.split(".")[0] == "keep" for key in overrides):
        try:
            keep_condition = format_keep_condition(changed_profile.keep_rule)
        except MvlError as error:
            raise MvlError(f"{source}: {error.message}", hint=error.hint) from error
    lake = study.get_lake(arm_id.arm)
    if lake is not None and (not isinstance(lake, str) or not lake):
        raise MvlError(
            f"{source}: {LAKE_KEY}: {lake!r} is no folder and no address", hint="name a lake, or leave it out"
        )
    return ResolvedArm(arm_id, changed_profile, recipe, keep_condition, lake)


def _validate_keys(study: Study, overrides: dict[str, Any], source: str) -> None:
    for key in overrides:
        if key in SEED_KEYS:
            raise MvlError(f"{source}: {key} is the study's", hint="name the seeds in `seeds`")
        first = key.split(".")[0]
        if first not in (*PROFILE_KEYS, RECIPE_KEY, LAKE_KEY):
            suggestion = format_suggestion(first, [*PROFILE_KEYS, RECIPE_KEY, LAKE_KEY])
            raise MvlError(
                f"{source}: {key} cannot differ between arms",
                hint=f"{suggestion}arms share all that is before the mixtures, or name another {LAKE_KEY}; they may"
                f" override {', '.join(PROFILE_KEYS)} and {RECIPE_KEY}",
            )
        sized_stages = [*study.budget.samples] if first == "mixture" else []
        if key in {f"mixture.{stage}" for stage in sized_stages}:
            raise MvlError(f"{source}: {key} and the budget both say how many rows", hint="leave one of them out")


def _set_value(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set the value at a dotted key; what lacks on the way is made, and validation says whether it may be there."""
    *parents, last = key.split(".")
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        if not isinstance(data[parent], dict):
            raise MvlError(f"{source}: {parent} has no keys", hint="shorten the key")
        data = data[parent]
    if isinstance(data.get(last), dict) and not isinstance(value, dict):
        raise MvlError(f"{source}: expected a mapping", hint=f"its keys are {', '.join(data[last]) or 'free'}")
    data[last] = value


def _validate_profile(data: dict[str, Any], source: str) -> Profile:
    try:
        profile = Profile.model_validate(data)
        require_reachable_shares(profile)
        resolve_filter(profile)
        if profile.mixture.strata is not None:
            resolve_strata(profile.mixture.strata)
    except ValidationError as error:
        first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        problem = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise MvlError(
            f"{source}: {'.'.join(map(str, first['loc']))}: {problem}", hint="the keys are those of a profile"
        ) from error
    except MvlError as error:
        raise MvlError(f"{source}: {error.message}", hint=error.hint) from error
    return profile


def _apply_budget(study: Study, profile: Profile, data: dict[str, Any], source: str) -> Recipe:
    """Return the recipe with the study's stages, and with the steps that the budget makes of its samples."""
    chosen = study.stages or list(data["stages"])
    named = {*chosen, *study.budget.samples, *study.budget.target_tokens}
    if lacking := sorted(named - set(data["stages"])):
        raise MvlError(
            f"{source}: recipe {data['name']} has no stage {', '.join(lacking)}",
            hint=f"it has {', '.join(data['stages'])}",
        )
    if unused := sorted(named - set(chosen)):
        raise MvlError(f"{source}: the budget names {', '.join(unused)}, which is not among its stages")
    stages: dict[str, Any] = {}
    for stage in chosen:
        settings = dict(data["stages"][stage])
        n_rows = sum(profile.mixture.compute_targets(stage).values())
        if stage in study.budget.samples:
            settings |= {"epochs": 1, "steps": math.ceil(study.budget.samples[stage] / settings["global_batch_size"])}
        elif stage in study.budget.target_tokens:
            settings |= {"epochs": 1, "steps": None}
        if settings["expected"]:
            settings["expected"] = settings["expected"] | {"samples": max(1, n_rows)}
        stages[stage] = settings
    return parse_recipe(data | {"stages": stages}, source)


def open_source_lake(lake: Lake, name: str | None) -> Lake:
    """Return the lake that arms are made of: the one that they name, or else the project's."""
    return lake if name is None else Lake(resolve_other_lake(name))


def write_arm(arm: ResolvedArm) -> Path:
    """Write the profile and the recipe of an arm, and return its folder."""
    folder = get_arm_dir(arm.arm_id)
    folder.mkdir(parents=True, exist_ok=True)
    profile = arm.profile.model_dump(mode="json") | {"recipe": str(folder / RECIPE_FILE)}
    for model in profile["models"].values():
        model["headers"] = {}  # arms ask no model, and headers may hold secrets
    if arm.lake is not None:
        write_text_atomic(folder / LAKE_FILE, arm.lake)
    for name, data in ((RECIPE_FILE, arm.recipe.to_dict()), (PROFILE_FILE, profile)):
        write_text_atomic(folder / name, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    return folder


def iter_differing_keys(first: Any, second: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys at which two values of plain data differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}, key=str):
            yield from iter_differing_keys(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
    elif first != second:
        yield path
