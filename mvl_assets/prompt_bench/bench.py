"""One round of `mvl try`: asks a few rows with the prompt at hand, and sets it beside the lake and the round before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import FamilyRewriter, Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, get_rewrite_prompt, load_prompt_file, load_prompts
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.loop import ProgressCallback
from mvl_assets.model_stage.samples import resolve_prompt_family
from mvl_assets.model_stage.stage import RequestCounts
from mvl_assets.prompt_bench.choose import choose_rewrites, choose_samples
from mvl_assets.prompt_bench.page import Column, Page, write_page
from mvl_assets.prompt_bench.rounds import Round, RoundFile, TriedStage, compare_prompts, format_prompts
from mvl_assets.prompt_bench.trial import SampleResult, Trial, read_current, try_judging, try_rewriting

LAKE_TITLE, PREVIOUS_TITLE, NEW_TITLE = "in the lake", "previous round", "this round"
SUMMARY_COLUMNS = ("", "samples", "rewrites", "words an answer", "refused", "judged", "kept", "why not")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is asked.

    Attributes:
        n_rows: Samples to rewrite, or rewrites to judge.
        id_prefixes: Beginnings of ids; if there are any, only these rows.
        seed: Another one chooses other rows.
        prompt_file: A prompt at hand; None takes the project's.
        model: A model of the profile; None takes that of the role.
        judges_rewrites: Whether new rewrites are judged, too.
    """

    n_rows: int
    id_prefixes: Sequence[str] = ()
    seed: int = 0
    prompt_file: Path | None = None
    model: str | None = None
    judges_rewrites: bool = True


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What a round did.

    Attributes:
        model: The model that was asked.
        requests: What was needed and sent, verdicts included.
        cost: Of what was sent, in `currency`.
        summary: A line per column of the page, the headings first.
    """

    model: str
    requests: RequestCounts
    cost: float
    currency: str
    seconds: float
    summary: list[list[str]]


def run_rewrite_round(
    lake: Lake,
    home: Path,
    source: SourceSpec,
    profile: Profile,
    options: BenchOptions,
    page_file: Path,
    progress: ProgressCallback | None = None,
) -> BenchReport:
    """Rewrite a few samples with a prompt, and write the page.

    Args:
        lake: The lake; no table but that of answers is changed.
        home: Where the prompt is remembered for the next round.
        source: A source of group B.
        profile: Names the models, the checks and the keep rule.
        options: What is asked.
        page_file: The page.
        progress: Called with the engine's progress.

    Raises:
        MvlError: The source, the prompt, the model or its server cannot be used.
    """
    started_at = time.monotonic()
    family = resolve_prompt_family(source)
    profile = _choose_rewriter(profile, family, options.model)
    stored_prompts = load_prompts(profile=profile)
    prompt = get_rewrite_prompt(stored_prompts, family)
    if options.prompt_file is not None:
        # Whatever family it was written for: here it takes the place of the source's.
        (prompt,) = _read_prompts(options.prompt_file, "rewrite", prompt.name, family, profile)
    samples = choose_samples(lake, source, options.n_rows, options.seed, options.id_prefixes)
    version_ids = [sample["version_id"] for sample in samples]

    def run_trial(round_: Round, *, may_send: bool) -> Trial:
        trial_profile = _choose_rewriter(profile, family, round_.model)
        prompts = stored_prompts | round_.prompts_by_name
        trial = try_rewriting(lake, source, trial_profile, prompts, version_ids, may_send=may_send, progress=progress)
        if not options.judges_rewrites:
            return trial
        return try_judging(lake, source, trial_profile, prompts, trial, may_send=may_send, progress=progress)

    this_round = Round((prompt,), profile.get_rewriter_name(family))
    new = run_trial(this_round, may_send=True)
    previous_round = RoundFile(home, "rewrite", source.slug).record(this_round)
    columns = [_build_column(LAKE_TITLE, read_current(lake, source, samples), this_round, profile)]
    if previous_round is not None and previous_round.model in profile.models:
        previous = run_trial(previous_round, may_send=False)
        columns.append(_build_column(PREVIOUS_TITLE, previous, previous_round, profile))
    columns.append(_build_column(NEW_TITLE, new, this_round, profile))
    drawn = {sample["sample_id"]: prompt.draw_task_types(sample["sample_id"]) for sample in samples}
    row_notes = {sample_id: f"task types: {', '.join(types)}" for sample_id, types in drawn.items() if types}
    return _finish(
        lake, source, "rewrite", this_round, previous_round, columns, profile, page_file, started_at, row_notes
    )


def run_judge_round(
    lake: Lake,
    home: Path,
    source: SourceSpec,
    profile: Profile,
    options: BenchOptions,
    page_file: Path,
    progress: ProgressCallback | None = None,
) -> BenchReport:
    """Judge a few rewrites of the lake with a prompt, and write the page. The arguments are `run_rewrite_round`'s."""
    started_at = time.monotonic()
    family = resolve_prompt_family(source)
    profile = _choose_judge(profile, options.model)
    stored_prompts = load_prompts(profile=profile)
    other_prompts = {n: p for n, p in stored_prompts.items() if (p.role, p.family) != ("judge", family)}
    if options.prompt_file is not None:
        drafts = _read_prompts(options.prompt_file, "judge", None, family, profile)
        stored_prompts = other_prompts | {prompt.name: prompt for prompt in drafts}
    # All as prompts of this family, which come before the general ones.
    criteria = [
        replace(prompt, family=family)
        for prompt in get_judge_prompts(stored_prompts, family, reference=profile.gives_reference)
    ]
    rewrites = choose_rewrites(lake, source, options.n_rows, options.seed, options.id_prefixes)
    samples = list({rewrite["version_id"]: rewrite for rewrite in rewrites}.values())
    current = _select_rewrites(read_current(lake, source, samples), {rewrite["rewrite_id"] for rewrite in rewrites})

    def run_trial(round_: Round, *, may_send: bool) -> Trial:
        trial_profile = _choose_judge(profile, round_.model)
        prompts = other_prompts | round_.prompts_by_name
        return try_judging(lake, source, trial_profile, prompts, current, may_send=may_send, progress=progress)

    this_round = Round(tuple(criteria), profile.roles["judge"])
    new = run_trial(this_round, may_send=True)
    previous_round = RoundFile(home, "judge", source.slug).record(this_round)
    columns = [_build_column(LAKE_TITLE, current, this_round, profile)]
    if previous_round is not None and previous_round.model in profile.models:
        previous = run_trial(previous_round, may_send=False)
        columns.append(replace(_build_column(PREVIOUS_TITLE, previous, previous_round, profile), shows_text=False))
    columns.append(replace(_build_column(NEW_TITLE, new, this_round, profile), shows_text=False))
    return _finish(lake, source, "judge", this_round, previous_round, columns, profile, page_file, started_at)


def _choose_rewriter(profile: Profile, family: str, name: str | None) -> Profile:
    """Return the profile with another of its models to rewrite a family."""
    if name is None:
        return profile
    _require_model(profile, name)
    prompts = profile.rewriters[family].prompts if family in profile.rewriters else None
    rewriter = FamilyRewriter(model=name, prompts=prompts)
    return profile.model_copy(update={"rewriters": profile.rewriters | {family: rewriter}})


def _choose_judge(profile: Profile, name: str | None) -> Profile:
    """Return the profile with another of its models as its judge."""
    if name is None:
        return profile
    _require_model(profile, name)
    return profile.model_copy(update={"roles": profile.roles | {"judge": name}})


def _require_model(profile: Profile, name: str) -> None:
    if name not in profile.models:
        raise MvlError(
            f"the profile {profile.name} has no model {name!r}",
            hint=f"{format_suggestion(name, profile.models)}its models are {', '.join(profile.models)}",
        )


def _read_prompts(path: Path, role: str, name: str | None, family: str, profile: Profile) -> list[Prompt]:
    """Return the prompts of a file as prompts of the source's family, with the profile's parameters of that."""
    changes = profile.prompt_parameters.get(family) if role == "rewrite" else None
    prompts = load_prompt_file(path, changes=changes, any_name=True)
    if prompts[0].role != role:
        raise MvlError(f"{path}: its role is {prompts[0].role}", hint=f"`mvl try {prompts[0].role}` tries it")
    return [replace(prompt, family=family, name=name or prompt.name) for prompt in prompts]


def _select_rewrites(trial: Trial, rewrite_ids: set[str]) -> Trial:
    return Trial(
        {
            version_id: SampleResult([r for r in result.rewrites if r.row["rewrite_id"] in rewrite_ids])
            for version_id, result in trial.results.items()
        }
    )


def _build_column(title: str, trial: Trial, round_: Round, profile: Profile) -> Column:
    note = {LAKE_TITLE: "not rewritten yet", PREVIOUS_TITLE: "not asked in that round"}.get(title, "nothing came of it")
    return Column(title, trial, profile.models[round_.model].price, empty_note=note)


def _finish(
    lake: Lake,
    source: SourceSpec,
    stage: TriedStage,
    this_round: Round,
    previous_round: Round | None,
    columns: Sequence[Column],
    profile: Profile,
    page_file: Path,
    started_at: float,
    row_notes: Mapping[str, str] | None = None,
) -> BenchReport:
    model = profile.models[this_round.model]
    new = columns[-1].trial
    requests = new.requests
    money = f", {model.price.currency} {new.cost:.4f}" if new.cost else ""
    facts = [
        ("source", f"{source.slug} ({source.category}, {source.family})"),
        ("prompt", ", ".join(f"{prompt.file} {prompt.hash[:12]}" for prompt in this_round.prompts)),
        ("model", f"{this_round.model}: {model.name}@{model.revision}"),
        (
            "requests",
            f"{requests.requested:,} and {requests.reasked:,} re-asks; {requests.cache_hits:,} were answered before,"
            f" {requests.attempts_sent:,} sent: {requests.prompt_tokens:,} tokens read,"
            f" {requests.completion_tokens:,} written{money}",
        ),
    ]
    summary = [list(SUMMARY_COLUMNS), *(_summarize(column) for column in columns)]
    page = Page(
        title=f"mvl try {stage}: {source.title}",
        facts=facts,
        summary=summary,
        prompt_text=format_prompts(this_round.prompts),
        prompt_changes="" if previous_round is None else compare_prompts(previous_round.prompts, this_round.prompts),
        row_notes=row_notes or {},
    )
    write_page(page_file, lake, source.slug, page, columns)
    return BenchReport(
        f"{model.name}@{model.revision}",
        requests,
        new.cost,
        model.price.currency,
        time.monotonic() - started_at,
        summary,
    )


def _summarize(column: Column) -> list[str]:
    """Return the line of a column in the summary."""
    results = column.trial.results.values()
    rewrites = list(column.trial.iter_rewrites())
    reasons = Counter(refusal.error for result in results for refusal in result.refusals)
    n_refused = reasons.total()
    judged = [rewrite.judged for rewrite in rewrites if rewrite.judged is not None]
    reasons.update(row["drop_reason"] for row in judged if not row["keep"])
    reasons.update(refusal.error for rewrite in rewrites for refusal in rewrite.refusals)
    n_words = [
        len(turn["value"].split())
        for rewrite in rewrites
        for turn in rewrite.row["conversations"]
        if turn["from"] == "gpt"
    ]
    mean_words = f"{sum(n_words) / len(n_words):.0f}" if n_words else ""
    counts = (len(results), len(rewrites), mean_words, n_refused, len(judged), sum(row["keep"] for row in judged))
    return [column.title, *map(str, counts), ", ".join(f"{name} {n}" for name, n in reasons.most_common())]
