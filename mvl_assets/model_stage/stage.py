"""Interface of a stage that asks a model: the requests it builds, how it parses an answer, the rows it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from mvl_assets.config.profile import ModelProfile, Price
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoints import resolve_endpoints
from mvl_assets.inference.fleet import Fleet
from mvl_assets.inference.images import FetchImages
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import ModelRef
from mvl_assets.lake.answer_lookup import WHOLE_SOURCE
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.model_stage.reask import Parsed, ReaskChain, RejectReason, Resolution
from mvl_assets.model_stage.shards import Shard, ShardRow

Subject = TypeVar("Subject")

FREE = Price()
DEFAULT_OPTIONS = EngineOptions()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a stage asks.

    Attributes:
        ref: Its identity.
        get_endpoints: Returns its endpoints or its fleet, and starts its server where that is needed; called before the
            first request is sent, and not at all when every answer is stored.
        price: What its tokens cost.
        options: Settings of the engine.
        batch_price_factor: What a token costs in a batch over what it costs otherwise, which is in `price`; None for a
            model that is asked one by one.
    """

    ref: ModelRef
    get_endpoints: Callable[[], Sequence[Endpoint] | Fleet]
    price: Price = FREE
    options: EngineOptions = DEFAULT_OPTIONS
    batch_price_factor: float | None = None

    @classmethod
    def from_profile(cls, model: ModelProfile, endpoints: Sequence[Endpoint] | None = None) -> ServedModel:
        """Return a model of the profile; `endpoints`, if given, replace the profile's."""
        return cls(
            ModelRef(
                model.name,
                model.revision,
                model.supports_images,
                model.max_image_side,
                model.thinking_tokens,
                model.encoded_extra_body,
            ),
            (lambda: resolve_endpoints(model)) if endpoints is None else (lambda: endpoints),
            model.token_price,
            EngineOptions(
                outage_timeout_s=model.outage_timeout_seconds,
                initial_outage_timeout_s=model.outage_timeout_seconds / 10,
                # Where tokens cost money, no request is sent twice.
                hedge_requests=not model.price.compute_cost(1_000_000, 1_000_000),
            ),
            model.batch.price_factor if model.mode == "batch" else None,
        )


@dataclass(frozen=True, slots=True)
class RowRequests(Generic[Subject]):
    """The requests about one row.

    Attributes:
        subject: What is needed to parse the answers and to build rows. It is written to disk, so it is small and has
            no messages.
        chains: The questions, in an order that is always the same.
        may_send: False for a row beyond a limit: answers it has are used, and no request is sent.
    """

    subject: Subject
    chains: Sequence[ReaskChain]
    may_send: bool = True


@dataclass(frozen=True, slots=True)
class FollowUpForecast:
    """Further requests that a new answer is followed by, per first request: likely ones, and the most there can be."""

    expected: float
    most: float


NO_FOLLOW_UPS = FollowUpForecast(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class BuiltRows:
    """The output for one row of the input.

    Attributes:
        rows: Rows of the stage's table.
        rejects: Rejects of what has no result.
        errors: The error classes that a report counts.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    rejects: Sequence[Reject] = ()
    errors: Sequence[str] = ()


class ModelStage(ABC, Generic[Subject, Parsed]):
    """A stage that asks one or more models about the rows of one source; `loop` runs it.

    Attributes:
        name: The first part of the answers' path, `answers/<name>/<source>`.
        source: The second part.
        shard: The rows of the source that the stage is restricted to; None for all of them.
        models: The models, each of which is asked about every row, one after the other.
        fetch_images: Loads the bytes of images by id; None loads them from the lake.
        prompt_hashes: The hashes of the current prompts, by which stored answers are counted.
        expected_tokens: Tokens of an answer by prompt, where the prompt says so; forecasts only.
        reasks: Whether an unusable answer is asked for again.
    """

    name: str
    source: str
    models: Sequence[ServedModel]
    shard: Shard | None = None
    fetch_images: FetchImages | None = None
    prompt_hashes: Collection[str] = ()
    expected_tokens: Mapping[str, int] = MappingProxyType({})
    reasks: bool = False

    def choose_follow_up_models(self) -> Sequence[ServedModel]:
        """Return the models that are asked once more, about what the stored answers of `models` left open.

        Called when all of these are stored. `iter_requests` knows such a model by its identity, and yields every row
        for it, too: one that leaves nothing open has no chains.
        """
        return ()

    def forecast_follow_ups(self, model: ServedModel) -> FollowUpForecast:
        """Return how many requests of `choose_follow_up_models` a new answer of a model will lead to."""
        return NO_FOLLOW_UPS

    @property
    def shard_name(self) -> str:
        """The third part of the answers' path; empty for a source that is not divided."""
        return WHOLE_SOURCE if self.shard is None else self.shard.name

    @abstractmethod
    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[Subject]]:
        """Yield every row with the requests to `model`, in the input's order; rows before `rotate_from` come last.

        `sendable_only` leaves out rows that no request may be sent for.
        """

    @abstractmethod
    def rebuild_requests(self, model: ServedModel, subjects: Sequence[Subject]) -> Iterator[RowRequests[Subject]]:
        """Yield the requests of a few rows again, in the order of `subjects`."""

    @abstractmethod
    def parse(
        self, subject: Subject, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> Parsed:
        """Return the result of an answer to the chain at `position`.

        Args:
            subject: What was asked about.
            position: Which of the subject's chains of requests was answered, from 0.
            request_key: Key of the answered request.
            answer: Its row of the answers table.
            length_factor: How many times as long as its prompt says the answer may be.

        Raises:
            RejectError: The answer gives no result.
        """

    def count_rows(self) -> int:
        """Return how many rows `iter_requests` yields; 0 if a run should always start at the first row."""
        return 0

    def estimate_request_count(self, model: ServedModel | None = None) -> int | None:
        """Return an estimate of the requests to a model, answered ones included, without building them.

        Args:
            model: The model; None for the first.

        Returns:
            None if there is no estimate.
        """
        return None


class TableStage(ModelStage[Subject, Parsed]):
    """A stage that publishes the rows of its source in a table, and its rejects.

    Attributes:
        table: The name of the table.
        run_id: The run that rows and rejects are marked with.
        tally: Counts of the rows built so far that only this stage knows; those of shards are added up.
    """

    table: str
    run_id: str
    tally: Counter[tuple[Any, ...]]

    @abstractmethod
    def iter_shard_rows(self) -> Iterator[ShardRow]:
        """Yield the rows of the whole source, in the order of `iter_requests`, with what decides their shards."""

    @abstractmethod
    def build_rows(self, subject: Subject, resolutions: Sequence[Sequence[Resolution[Parsed]]]) -> BuiltRows:
        """Return the rows and rejects of one row of the input.

        Args:
            subject: The row.
            resolutions: Per model, follow-up models included, the resolution of each of the row's chains.
        """

    def build_reject(self, row_key: str, reason: RejectReason) -> Reject:
        """Return the reject of a chain without a result."""
        return Reject(
            self.name,
            self.source,
            row_key,
            reason.error,
            reason.message,
            attempts=reason.attempts,
            request_key=reason.request_key,
        )


@dataclass(slots=True)
class RequestCounts:
    """How many requests a run needed, and what it sent.

    Attributes:
        requested: First requests, of all rows that requests may be sent for.
        reasked: Requests that follow an unusable answer.
        cache_hits: First requests that were answered before.
        skipped: Requests of both kinds that failed in an earlier run and are not sent again without being told to.
        attempts_sent: Attempts that were sent.
        prompt_tokens: Tokens that the models read.
        completion_tokens: Tokens that the models wrote.
    """

    requested: int = 0
    reasked: int = 0
    cache_hits: int = 0
    skipped: int = 0
    attempts_sent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: RequestCounts) -> RequestCounts:
        return RequestCounts(
            self.requested + other.requested,
            self.reasked + other.reasked,
            self.cache_hits + other.cache_hits,
            self.skipped + other.skipped,
            self.attempts_sent + other.attempts_sent,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )
