"""Asking one model for one stage of one source: sends what has no answer yet, and starts a server only for that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoints import resolve_endpoints
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.images import FetchImages
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import FailedRequest, Progress, RunOutcome
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import load_previous_failures

REQUEST_BATCH_SIZE = 512

ProgressCallback = Callable[[Progress], None]


def to_model_ref(model: ModelProfile) -> ModelRef:
    return ModelRef(model.name, model.revision, model.supports_images, model.max_image_side)


class ModelStageClient:
    """Sums up what its calls did: requests wanted and reused, those sent, tokens, and failures by request key.

    `skipped` of the wanted ones failed in an earlier run in a way that is not asked again (see `failed`), unless `retry_error_classes`
    names their error class; they count among the failures. `total`, about how many requests there are, gives the
    progress an end. `fetch_images` fetches pictures that are not the lake's.

    The answers stored so far are mostly those of the first rows: a run goes through its rows in the order of the run
    before. One that begins where those end (`compute_resume_offset`) has something to send at once, however many there are.
    """

    def __init__(
        self,
        lake: Lake,
        stage: str,
        source: str,
        model: ModelProfile,
        run_id: str,
        endpoints: Sequence[Endpoint] | None = None,
        progress: ProgressCallback | None = None,
        *,
        retry_error_classes: Collection[str] = (),
        total: int | None = None,
        fetch_images: FetchImages | None = None,
    ) -> None:
        self._fetch_images = lake.images.read_stored_images if fetch_images is None else fetch_images
        self._log = lake.get_answer_log(stage, source)
        # The engine reads the requests in another thread than it commits in: looking keys up has its own handle.
        self._lookup_log = lake.get_answer_log(stage, source)
        self._model = model
        self._run_id = run_id
        self._endpoints = endpoints
        self._progress = progress
        self._total = total
        self._previous_failures = load_previous_failures(lake, stage, source, retry_error_classes)
        # Rows of earlier calls of `send_requests`, which the engine's report of this one does not count.
        self._n_finished = 0
        # What was stored before, as far as it was counted; `cache_hits` gets there only when the rows come by.
        self._n_stored_answers = 0
        self.requested = 0
        self.cache_hits = 0
        self.skipped = 0
        self.attempts_sent = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failures: dict[str, FailedRequest] = dict(self._previous_failures.skipped)

    def compute_resume_offset(self, prompts: Iterable[Prompt], n_rows: int) -> int:
        """The row, of so many, with which to begin: all before have answers if they came in order."""
        table = self._lookup_log.table
        model_filter = (
            f"{sql.equals('model', self._model.name)} AND {sql.equals('model_revision', self._model.revision)}"
        )
        self._n_stored_answers = table.count(
            f"{model_filter} AND {sql.is_in('prompt_hash', {prompt.hash for prompt in prompts})}"
        )
        return int(n_rows * min(1.0, self._n_stored_answers / self._total)) if self._total else 0

    def send_requests(self, requests: Iterable[Request | None]) -> RunOutcome | None:
        """Returns when every request is answered durably or has failed; None when there was nothing to send.

        `requests` is consumed once, in batches; a None in it stands for a row that asks nothing. Raises what
        `answer_all` raises.
        """
        pending = self._iter_pending(requests)
        first_request = next((request for request in pending if request is not None), None)
        if first_request is None:
            return None
        if self._endpoints is None:
            self._endpoints = resolve_endpoints(self._model)
        outcome = answer_all(
            chain([first_request], pending),
            endpoints=self._endpoints,
            log=self._log,
            fetch_images=self._fetch_images,
            run_id=self._run_id,
            price=self._model.price,
            progress_callback=None if self._progress is None else self._report_progress,
            options=EngineOptions(
                outage_timeout_s=self._model.outage_timeout_seconds,
                initial_outage_timeout_s=self._model.outage_timeout_seconds / 10,
                # Where tokens cost money nothing is asked beside itself.
                hedge_requests=not self._model.price.compute_cost(1_000_000, 1_000_000),
            ),
        )
        self._n_finished += outcome.requested
        self.attempts_sent += outcome.attempts_sent
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens
        for failure in outcome.failures:
            previous_attempts = self._previous_failures.attempts_by_key.get(failure.request_key, 0)
            self.failures[failure.request_key] = replace(failure, attempts=failure.attempts + previous_attempts)
        return outcome

    def _iter_pending(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        """What is to be sent, with a None after every batch: the engine commits between two, however many rows in a row
        have their answers."""
        requests = iter(requests)
        while chunk := list(islice(requests, REQUEST_BATCH_SIZE)):
            batch = [request for request in chunk if request is not None]
            answered_keys = self._lookup_log.find_answered({request.key for request in batch})
            self.requested += len(batch)
            for request in batch:
                if request.key in answered_keys:
                    self.cache_hits += 1
                elif request.key in self.failures:
                    self.skipped += 1
                else:
                    yield request
            yield None

    def _report_progress(self, progress: Progress) -> None:
        """The engine's report, with what it never saw because it was answered or left before."""
        assert self._progress is not None
        n_finished = (
            self._n_finished + progress.n_finished + max(self.cache_hits, self._n_stored_answers) + self.skipped
        )
        if self._total is None:
            self._progress(replace(progress, n_finished=n_finished))
            return
        total = max(self._total, n_finished)
        eta_s = (total - n_finished) / progress.requests_per_s if progress.requests_per_s > 0 else None
        self._progress(replace(progress, n_finished=n_finished, total=total, eta_s=eta_s))
