"""Profiles: the sources, models, keep rule and mixture of a run.

A profile is a YAML file in `profiles/` of the project or of the package (by name), or anywhere (by path). Unknown keys
are errors.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from mvl_assets.common.licenses import Use
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.config.project import PACKAGE_DIR, find_own_dir, list_files
from mvl_assets.config.prompt_parameters import PromptParameters
from mvl_assets.config.score_file import ScoreFile, check_score_names
from mvl_assets.config.strict_yaml import StrictModel, read_document
from mvl_assets.errors import MvlError
from mvl_assets.stages import ModelRole

PROFILES_DIR = PACKAGE_DIR / "profiles"
DEFAULT_VOTES = 5
PAPER_KEEP_RULE = "all_yes"
DEFAULT_KEEP_RULE = "all_yes and (matches_reference or (no_reference and p_yes >= 0.8))"
"""Its reasons are in `judging.keep`."""


# What an extra body may not change.
_RESERVED_FIELDS = frozenset(
    {"model", "messages", "stream", "n", "response_format", "structured_outputs", "logprobs", "chat_template_kwargs"}
)


class LocalServerConfig(StrictModel):
    """A vLLM server that this machine starts on demand. `model` is a prepared model's name, a path or a hub id."""

    model: str
    max_model_len: int = 2048
    max_num_seqs: int = 32
    kv_cache_gib: int = 1
    # Seconds without a request after which the server is stopped.
    idle_timeout_seconds: float = 900
    args: list[str] = Field(default_factory=list)


class Price(StrictModel):
    """Price of tokens: money per million, and GPU time at a price per hour."""

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    # Rates of generated and of prompt tokens: a judge reads an image and a conversation to write one word.
    tokens_per_gpu_second: float | None = None
    prompt_tokens_per_gpu_second: float | None = None
    gpu_hour: float | None = None
    currency: str = "USD"

    def compute_gpu_hours(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the GPU hours for these tokens; None without a generation rate. A missing prompt rate adds none."""
        if not self.tokens_per_gpu_second:
            return None
        seconds = completion_tokens / self.tokens_per_gpu_second
        if self.prompt_tokens_per_gpu_second:
            seconds += prompt_tokens / self.prompt_tokens_per_gpu_second
        return seconds / 3600

    def compute_cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of these tokens and, where it has a price, of the GPU time they take."""
        token_cost = (prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million) / 1e6
        return round(
            token_cost + (self.compute_gpu_hours(prompt_tokens, completion_tokens) or 0.0) * (self.gpu_hour or 0.0), 6
        )


class BatchConfig(StrictModel):
    """How requests are handed over in batches; the defaults are OpenAI's limits and price.

    Attributes:
        max_requests: Requests of one batch.
        max_mb: Megabytes of its file.
        window: Time in which the server has to answer it.
        max_open: Batches that it has at a time.
        poll_seconds: Seconds between two looks at them.
        price_factor: Price of a token in a batch over its price otherwise.
    """

    max_requests: int = Field(default=50_000, gt=0)
    max_mb: float = Field(default=200.0, gt=0)
    window: str = "24h"
    max_open: int = Field(default=16, gt=0)
    poll_seconds: float = Field(default=30.0, gt=0)
    price_factor: float = Field(default=0.5, ge=0)


class ModelProfile(StrictModel):
    """One model behind OpenAI-compatible endpoints: fixed ones, those of a fleet that may change, or a local server.

    Attributes:
        base_urls: Fixed endpoints; with `mode: batch` one, which may be a folder (`file:///shared/batches`).
        endpoints_file: A file that lists the base URLs of a fleet, one per line or as a JSON or YAML list; it is
            watched.
        dns: A base URL whose host has an address per server of a fleet, such as a headless service; it is resolved
            again and again.
        serve: A local server that is started on demand.
        mode: Whether requests are sent one by one, or handed over in batches.
    """

    name: str
    revision: str
    supports_images: bool
    base_urls: list[str] = Field(default_factory=list)
    endpoints_file: str | None = None
    dns: str | None = None
    api_key_env: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    serve: LocalServerConfig | None = None
    concurrency: int = Field(default=32, gt=0)
    # How long all endpoints may be unreachable before a run ends with an error; a tenth of it before the first answer.
    outage_timeout_seconds: float = Field(default=300.0, gt=0)
    # Larger images are scaled down to this longest side, in pixels, before they are sent.
    max_image_side: int = Field(default=1344, gt=0)
    license: str | None = None
    # Of a model that thinks before it answers: the room for thoughts, on top of the limit of an answer; and whether
    # they are left out of rewrites, or precede the answer as its rationale (of prompts with one plain answer: math,
    # code).
    thinking_tokens: int = Field(default=0, ge=0)
    reasoning: Literal["drop", "rationale"] = "drop"
    # How its servers take the constraint of an answer: `inference.client.output_forms`. `auto`: one probe tells.
    output_form: Literal["auto", "vllm", "openai", "none"] = "auto"
    # Whether its servers give log-probabilities; null: one probe tells.
    logprobs: bool | None = None
    # Fields of every request besides those of the prompt, over which they go; null leaves a field out.
    extra_body: dict[str, Any] = Field(default_factory=dict)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    price: Price = Price()
    mode: Literal["online", "batch"] = "online"
    batch: BatchConfig = BatchConfig()

    @property
    def token_price(self) -> Price:
        """The price in the model's mode."""
        factor = self.batch.price_factor if self.mode == "batch" else 1.0
        return self.price.model_copy(
            update={
                "input_per_million": self.price.input_per_million * factor,
                "output_per_million": self.price.output_per_million * factor,
            }
        )

    @property
    def encoded_extra_body(self) -> str:
        """Canonical JSON of what every request has besides the fields of the prompt; empty for nothing."""
        extra_body = self.extra_body | (
            {"chat_template_kwargs": self.chat_template_kwargs} if self.chat_template_kwargs else {}
        )
        return json.dumps(extra_body, sort_keys=True, separators=(",", ":")) if extra_body else ""

    @model_validator(mode="after")
    def _validate_extra_body(self) -> ModelProfile:
        if reserved := sorted(_RESERVED_FIELDS & set(self.extra_body)):
            raise ValueError(f"extra_body cannot have {', '.join(reserved)}: the prompt and the profile say these")
        try:
            json.dumps([self.extra_body, self.chat_template_kwargs], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra_body and chat_template_kwargs must be JSON: {error}") from error
        return self

    @model_validator(mode="after")
    def _validate_endpoint(self) -> ModelProfile:
        if sum(map(bool, (self.base_urls, self.endpoints_file, self.dns, self.serve))) != 1:
            raise ValueError("give one of base_urls, endpoints_file, dns and serve")
        if self.mode == "batch" and len(self.base_urls) != 1:
            raise ValueError("mode: batch needs base_urls with one address: a batch is on one server")
        return self


class KeepConfig(StrictModel):
    """The rule that decides which judged pairs are kept.

    `rule` is an expression over `all_yes`, `p_yes >= t`, `matches_reference` and `no_reference`, joined by `and` and
    `or`; see `judging.keep`. Null is `DEFAULT_KEEP_RULE`, or the paper's rule (`all_yes`) with `paper_parity`.
    `labels`: what people say of a pair beats the rule; who labels pairs to measure the judge may not want that.
    """

    rule: str | None = None
    labels: bool = False


PanelRule = Literal["mean", "majority", "unanimous"]


class TextOnlyProbe(StrictModel):
    """A model that is asked each question without its picture; see `judging.text_only_probe`.

    `drop`: pairs that it answers are dropped; else the column `needs_image` says so.
    """

    model: str
    drop: bool = False


class JudgingConfig(StrictModel):
    """How pairs are judged.

    Attributes:
        panel: Names of further models that are asked the same as the judge; a pair's verdicts are then the panel's.
        panel_rule: How the panel decides a criterion: by the mean of P(yes), by most verdicts, or by all.
        reference: Whether a judge gets the source's answers; null: yes, but not with `paper_parity`.
        votes: How often a judge whose server gives no log-probabilities is asked about a criterion; P(yes) is the
            share of Yes. Null: 5, or 1 with `paper_parity`, which leaves P(yes) unknown.
        vote_temperature: The temperature of all votes but the first.
        text_only_probe: Finds pairs that can be answered without their picture; null: nobody is asked.
    """

    panel: list[str] = Field(default_factory=list)
    panel_rule: PanelRule = "majority"
    reference: bool | None = None
    votes: int | None = Field(default=None, ge=1, le=99)
    vote_temperature: float = Field(default=0.7, gt=0, le=2)
    text_only_probe: TextOnlyProbe | None = None

    @property
    def further_models(self) -> list[str]:
        """The names of the models that are asked besides the judge."""
        return [*self.panel, *([] if self.text_only_probe is None else [self.text_only_probe.model])]


CheckName = Literal[
    "refusal",
    "json_debris",
    "broken_markup",
    "repetition",
    "ends_in_middle",
    "unchanged",
    "options_lost",
    "reference_contradicted",
    "caption_talk",
    "other_language",
]
"""Checks of rewritten pairs (`rewriting.checks`), which are reject reasons."""


class ExecutorConfig(StrictModel):
    """Where the shards of a source are worked on: processes of this machine, or a Ray cluster.

    `address` is Ray's: `auto`, `host:port` or `ray://host:port`; null starts Ray on this machine.
    """

    kind: Literal["processes", "ray"] = "processes"
    # Shards at a time; null takes one per CPU, of this machine or of the cluster.
    processes: int | None = Field(default=None, gt=0)
    address: str | None = None
    # Rows above which a source is rewritten and judged in shards of up to this many.
    shard_rows: int = Field(default=65_536, gt=0)

    @model_validator(mode="after")
    def _validate_address(self) -> ExecutorConfig:
        if self.address is not None and self.kind != "ray":
            raise ValueError("an address belongs to kind: ray")
        return self


class FamilyRewriter(StrictModel):
    """What rewrites one family of prompts in place of the role's model.

    Attributes:
        model: The model's name in the profile.
        prompts: The set that the family's prompt is taken from; None takes the profile's.
    """

    model: str
    prompts: str | None = None


class Profile(StrictModel):
    """Everything a run needs to know besides the catalog."""

    name: str
    sources: list[str] | Literal["all"] = "all"
    # Rows per source, those with the smallest sample ids; null takes all.
    limit: int | None = Field(default=None, gt=0)
    # Whether missing files of a source are fetched when it is read, and whether its files stay afterwards.
    fetch: bool = False
    keep_archives: bool = True
    # Rows sent to rewriting per source, chosen the same way; null takes all.
    rewrite_limit: int | None = Field(default=None, gt=0)
    # Samples per source, chosen the same way, whose original and one rewrite are scored; 0 leaves the stage out.
    score_rows: int = Field(default=1000, ge=0)
    models: dict[str, ModelProfile]
    # `score` may be left out: then the judge scores.
    roles: dict[ModelRole, str]
    # Families that a model of their own rewrites, such as one that is strong at mathematics.
    rewriters: dict[str, FamilyRewriter] = Field(default_factory=dict)
    # A variant of the prompts: `small` for models of less than about a billion parameters; null: those for large ones.
    prompts: str | None = None
    # Parameters of rewriting prompts that differ from those of their files, by family: `config.prompt_parameters`.
    prompt_parameters: dict[str, PromptParameters] = Field(default_factory=dict)
    # Checks of rewrites before they are judged, where they differ from the default: all, and none with paper_parity.
    checks: dict[CheckName, bool] = Field(default_factory=dict)
    judging: JudgingConfig = JudgingConfig()
    keep: KeepConfig = KeepConfig()
    mixture: MixtureConfig = MixtureConfig()
    # Which rows mixtures take: a condition over columns of `lake_queries.mixtures.score_columns`, such as "p_yes >= 0.8
    # and n_chars < 4000"; a row that lacks a score is not refused for it. Null takes all.
    where: str | None = None
    # Scores that others gave rows, by name: `config.score_file`. `where` names them as `name.column`.
    scores: dict[str, ScoreFile] = Field(default_factory=dict)
    # The use that the licences of a row have to permit, its source's and its rewriter's: `common.licenses`.
    licences: Use = "all"
    duplicates: DuplicateRules = DuplicateRules()
    contamination: ContaminationRules = ContaminationRules()
    executor: ExecutorConfig = ExecutorConfig()
    # Share of the samples with a short answer that no mixture may take; they are the questions of held-out evaluation.
    holdout_fraction: float = Field(default=0.0, ge=0, lt=1)
    recipe: str = "paper-7b"
    # Whether a mixture is written once more in the order of training, with its images, so that ranks read it in
    # sequence and need no index of its rows. `auto`: from a million rows.
    materialize_packs: Literal["auto"] | bool = "auto"
    # How export/llava_json lies on the disk: one JSON file and a folder of images, as MAmmoTH-VL was released, or
    # shards of JSON lines with a tar of images each. `auto`: shards from a million rows.
    export_layout: Literal["auto", "files", "shards"] = "auto"
    # The paper's choices where the defaults differ: no removal of duplicates and contamination, no checks of rewrites
    # but the judge's, a judge without the source's answers, its keep rule, its loss mask.
    paper_parity: bool = False

    @model_validator(mode="after")
    def _validate_roles(self) -> Profile:
        missing_roles = {"caption", "rewrite", "judge"} - set(self.roles)
        undeclared_models = set(self.model_names) - set(self.models)
        if missing_roles or undeclared_models:
            raise ValueError(
                f"roles without a model: {sorted(missing_roles)}; models not declared: {sorted(undeclared_models)}"
            )
        judges = [self.roles["judge"], *self.judging.panel]
        if len(set(judges)) < len(judges):
            raise ValueError(f"a judge is twice in the panel ({', '.join(judges)}), and would only agree with itself")
        return self

    @model_validator(mode="after")
    def _validate_scores(self) -> Profile:
        check_score_names(self.scores)
        return self

    @model_validator(mode="after")
    def _validate_executor(self) -> Profile:
        local_models = sorted(name for name, model in self.models.items() if model.serve)
        if self.executor.address is not None and local_models:
            raise ValueError(
                f"models with `serve` ({', '.join(local_models)}) answer this machine only, and the executor's address "
                "may have others: give them base_urls"
            )
        return self

    def list_checks(self) -> list[CheckName]:
        """Return the checks that rewrites have to pass."""
        return [name for name in get_args(CheckName) if self.checks.get(name, not self.paper_parity)]

    @property
    def near_duplicate_rules(self) -> DuplicateRules | None:
        """When two samples are near duplicates; None where they are not looked for, as in the paper."""
        return self.duplicates if self.duplicates.near and not self.paper_parity else None

    def copy_with_online_models(self) -> Profile:
        """Return the profile with models that answer at once: nobody waits hours for a few rows."""
        online = {name: model.model_copy(update={"mode": "online"}) for name, model in self.models.items()}
        return self.model_copy(update={"models": online})

    def get_model(self, role: ModelRole) -> ModelProfile:
        """Return the model of a role; the judge's for scores, where these have none of their own."""
        return self.models[self.roles.get(role, self.roles["judge"]) if role == "score" else self.roles[role]]

    def get_rewriter(self, family: str | None) -> ModelProfile:
        """Return the model that rewrites a prompt family."""
        return self.models[self.get_rewriter_name(family)]

    def get_rewriter_name(self, family: str | None) -> str:
        """Return the profile's name of it: the family's own model, or that of the role `caption` or `rewrite`."""
        if family in self.rewriters:
            return self.rewriters[family].model
        return self.roles["caption" if family == "caption" else "rewrite"]

    @property
    def judges(self) -> dict[str, ModelProfile]:
        """The judge and, after it, the others of the panel, by their names in the profile."""
        return {name: self.models[name] for name in (self.roles["judge"], *self.judging.panel)}

    @property
    def model_names(self) -> list[str]:
        """The names of the models that a run needs."""
        rewriters = [rewriter.model for rewriter in self.rewriters.values()]
        return list(dict.fromkeys([*self.roles.values(), *rewriters, *self.judging.further_models]))

    @property
    def prober(self) -> ModelProfile | None:
        """The model that is asked without pictures; None where nobody is."""
        probe = self.judging.text_only_probe
        return None if probe is None else self.models[probe.model]

    @property
    def keep_rule(self) -> str:
        """The rule by which pairs are kept: the profile's own, the paper's with `paper_parity`, or the default."""
        rule = self.keep.rule or (PAPER_KEEP_RULE if self.paper_parity else DEFAULT_KEEP_RULE)
        return f"label == good or (label != bad and ({rule}))" if self.keep.labels else rule

    @property
    def gives_reference(self) -> bool:
        """Whether judges get the source's answers."""
        return not self.paper_parity if self.judging.reference is None else self.judging.reference

    @property
    def n_votes(self) -> int:
        """How often a judge without log-probabilities is asked about a criterion."""
        return (1 if self.paper_parity else DEFAULT_VOTES) if self.judging.votes is None else self.judging.votes


def load_profile(name: str) -> Profile:
    """Return a profile by name or path.

    Raises:
        MvlError: There is no such profile, or the file has a mistake; names the file, line and key.
    """
    files = list_files(PROFILES_DIR, find_own_dir("profiles"), "*.yaml")
    path = Path(name) if name.endswith((".yaml", ".yml")) else files.get(f"{name}.yaml")
    if path is None or not path.is_file():
        profile_names = sorted(file_name.removesuffix(".yaml") for file_name in files)
        raise MvlError(
            f"there is no profile {name!r}",
            hint=f"{format_suggestion(name, profile_names)}set MVL_PROFILE to one of {', '.join(profile_names)}, "
            "or to a YAML file",
        )
    return _read_profile(path, path.stat().st_mtime_ns)


@lru_cache
def _read_profile(path: Path, mtime_ns: int) -> Profile:
    hint = "correct the file, or set MVL_PROFILE to another profile"
    return read_document(path, hint=hint).validate(Profile, hint=hint)
