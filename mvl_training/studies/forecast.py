"""What a study would take, of the lake as it is: rows, steps, GPU hours, disk, and what arms share. Writes nothing.

Arms are built from answers that are stored, so a study sends no request to a rewriter or a judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.curation.mixing import open_mixture
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import CATEGORY
from mvl_training.evaluation.benchmarks.benchmark_run import is_lmms_eval_installed
from mvl_training.evaluation.benchmarks.registry import load_suites
from mvl_training.model.cost_model import ModelSizes, compute_recipe_sizes
from mvl_training.recipe import Recipe
from mvl_training.runs.forecast import forecast_stage
from mvl_training.studies.arm_steps import STEP_NAMES, StepName, is_step_done, list_source_groups
from mvl_training.studies.arms import ResolvedArm, open_source_lake
from mvl_training.studies.study import HELD_OUT, Study

BYTES_PER_MIXTURE_ROW = 400
"""Of a mixture and its plan on disk, measured on ids that do not compress."""


@dataclass(frozen=True, slots=True)
class StageSelection:
    """What a mixture takes: rows, how many of them are rewritten, and a digest of them."""

    rows: int
    rewritten: int
    digest: str


class ShortMixtureError(MvlError):
    """A mixture has fewer rows than its budget."""


Selections = Mapping[str, Mapping[TrainingStage, StageSelection]]
"""What mixtures take, by arm and training stage."""


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One training stage of one arm.

    Attributes:
        rows: Rows of its mixture.
        rewritten: Those of them that are rewritten.
        steps: Optimizer steps; those of a budget of target tokens at most.
        gpu_hours: None where the recipe expects nothing of its data, as those for a CPU.
        disk_bytes: Weights and the checkpoints that training resumes from.
        digest: Digest of rows, settings and what it starts from: stages with the same one are trained once.
    """

    stage: TrainingStage
    rows: int
    rewritten: int
    steps: int
    gpu_hours: float | None
    disk_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """An arm with one seed: its stages, and the steps that are done."""

    arm: ResolvedArm
    stages: Sequence[StageForecast]
    done: Sequence[StepName]


def validate_suites(study: Study) -> None:
    """Check that the study's suites exist and can be asked here.

    Raises:
        MvlError: One does not, or needs what is not installed.
    """
    known = [HELD_OUT, *load_suites()]
    for suite in study.suites:
        if suite not in known:
            raise MvlError(f"study {study.name}: there is no suite {suite!r}", hint=f"known: {', '.join(known)}")
        if suite != HELD_OUT and not is_lmms_eval_installed():
            raise MvlError(f"study {study.name}: suite {suite} needs lmms-eval", hint="make eval-setup")


def select_rows(lake: Lake, study: Study, arms: Sequence[ResolvedArm]) -> Selections:
    """Return the number of rows and a digest of them by arm and stage, after a look at all that can go wrong.

    How many rows does not depend on the seed; which ones does, and one seed stands for all.

    Raises:
        MvlError: Nothing is held out, a mixture cannot fill its budget, or two arms take the same rows and train on
            them in the same way.
    """
    validate_suites(study)
    if arms[0].profile.holdout_fraction == 0 and HELD_OUT in study.suites:
        raise MvlError(
            f"study {study.name}: nothing is held out to ask", hint="set `holdout_fraction` in the profile above 0"
        )
    first_arms = arms[: len(study.arms)]
    selections = {arm.arm_id.arm: select_arm_rows(lake, study, arm) for arm in first_arms}
    _require_different_rows(study, first_arms, selections)
    return selections


def forecast_study(
    study: Study,
    arms: Sequence[ResolvedArm],
    selections: Selections,
    *,
    mfu: float,
    peak_flops: float,
    is_started: bool,
) -> list[ArmForecast]:
    """Return what every arm would take.

    Args:
        study: The study.
        arms: Its arms, as `resolve_arms` returns them.
        selections: What `select_rows` returned.
        mfu: Model FLOPs utilisation of a GPU.
        peak_flops: FLOP/s of a GPU.
        is_started: Whether steps of the study may be done already.
    """
    sizer, forecasts = _Sizer(mfu, peak_flops), []
    for arm in arms:
        stages: list[StageForecast] = []
        for stage, selection in selections[arm.arm_id.arm].items():
            previous = stages[-1].digest if stages else ""
            stages.append(_forecast_stage(arm, stage, selection, previous, sizer))
        done = [step for step in STEP_NAMES if is_started and is_step_done(study, arm, step)]
        forecasts.append(ArmForecast(arm, stages, done))
    return forecasts


def select_arm_rows(lake: Lake, study: Study, arm: ResolvedArm) -> dict[TrainingStage, StageSelection]:
    """Return what the mixtures of an arm take, by training stage.

    Raises:
        ShortMixtureError: One of them cannot fill its budget, or has no rows.
        MvlError: There is no lake where the arm names one.
    """
    lake = open_source_lake(lake, arm.lake)
    if arm.lake is not None and not lake.list_tables(CATEGORY.name):
        raise MvlError(
            f"study {study.name}, arm {arm.arm_id.arm}: there is no lake with rows at {lake.root}",
            hint="make it with another model or other prompts: docs/studies.md says how",
        )
    groups = list_source_groups(study, arm.profile)
    selected = {}
    with open_mixture(lake, arm.profile, list(arm.stages), groups, arm.keep_condition) as (pool, fills):
        for stage in arm.stages:
            fill = fills[stage]
            short = [f"{f.category} {f.selected:,} of {f.target:,}" for f in fill.categories if f.shortfall]
            n_rows = sum(f.selected for f in fill.categories)
            if (stage in study.budget.samples and short) or not n_rows:
                raise ShortMixtureError(
                    f"study {study.name}, arm {arm.arm_id.arm}: mixture/{stage} has {n_rows:,} rows of"
                    f" {sum(f.target for f in fill.categories):,} ({', '.join(short) or 'no category'})",
                    hint="lower the budget, change the shares, or set mixture.upsample: true in `settings`",
                )
            n_rewritten = sum(f.rewritten for f in fill.categories)
            selected[stage] = StageSelection(n_rows, n_rewritten, pool.digest_selected(fill.quotas))
    return selected


def _require_different_rows(study: Study, arms: Sequence[ResolvedArm], selections: Selections) -> None:
    first_arms: dict[str, str] = {}
    for arm in arms:
        name = arm.arm_id.arm
        digest = compute_digest({s: asdict(v) for s, v in selections[name].items()}, arm.recipe.to_dict())
        if (first := first_arms.setdefault(digest, name)) != name:
            raise MvlError(
                f"study {study.name}: the arms {first} and {name} take the same rows of this lake and train on them in"
                " the same way, so they cannot differ",
                hint="what they vary changes nothing here: vary something else, or remove one of them",
            )


def _forecast_stage(
    arm: ResolvedArm, stage: TrainingStage, selection: StageSelection, previous: str, sizer: _Sizer
) -> StageForecast:
    config = arm.recipe.get_stage(stage)
    n_steps = config.steps or -(-selection.rows // config.global_batch_size) * config.epochs
    sizes = sizer.compute_sizes(arm.recipe)
    n_params = sum(sizes.params.values())
    n_trained = sum(n for component, n in sizes.params.items() if component in config.learning_rates)
    n_kept = min(config.keep_checkpoints, max(1, n_steps // config.save_interval))
    weight_bytes = n_params * (2 if config.precision == "bf16" else 4)
    # What training resumes from has the weights, and in fp32 those that are trained with AdamW's two moments.
    return StageForecast(
        stage=stage,
        rows=selection.rows,
        rewritten=selection.rewritten,
        steps=n_steps,
        gpu_hours=None if config.expected is None else sizer.compute_gpu_hours(arm.recipe, stage),
        disk_bytes=weight_bytes + n_kept * (weight_bytes + 12 * n_trained) + selection.rows * BYTES_PER_MIXTURE_ROW,
        digest=compute_digest(arm.recipe.build_training_inputs(stage), arm.arm_id.seed, selection.digest, previous),
    )


class _Sizer:
    """Sizes of models and hours of training, each computed once: arms mostly have them in common."""

    def __init__(self, mfu: float, peak_flops: float) -> None:
        self._mfu, self._peak_flops = mfu, peak_flops
        self._sizes: dict[str, ModelSizes] = {}
        self._gpu_hours: dict[str, float] = {}

    def compute_sizes(self, recipe: Recipe) -> ModelSizes:
        key = compute_digest(
            *(part and part.model_dump() for part in (recipe.student, recipe.language, recipe.vision, recipe.grid))
        )
        if key not in self._sizes:
            self._sizes[key] = compute_recipe_sizes(recipe)
        return self._sizes[key]

    def compute_gpu_hours(self, recipe: Recipe, stage: TrainingStage) -> float:
        key = compute_digest(recipe.to_dict() | {"seed": 0}, stage)
        if key not in self._gpu_hours:
            forecast = forecast_stage(recipe, stage, self.compute_sizes(recipe), n_gpus=recipe.nproc_per_node)
            self._gpu_hours[key] = forecast.compute_gpu_days(self._mfu, self._peak_flops) * 24
        return self._gpu_hours[key]
