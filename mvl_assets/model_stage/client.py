"""Asking one model for one stage of one source: sends what has no answer yet, and starts a server only for that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import Prompt
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoints import endpoints_for
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.images import FetchPictures
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import Failure, Outcome, Progress
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.retry_policy import rejected

BATCH = 512

ProgressSink = Callable[[Progress], None]


def model_ref(model: ModelProfile) -> ModelRef:
    return ModelRef(model.name, model.revision, model.sees_images, model.max_side)


class Asker:
    """Sums up what its calls did: requests wanted and reused, those sent, tokens, and failures by request key.

    `left` of the wanted ones failed in an earlier run in a way that is not asked again (see `failed`), unless `retry`
    names their error class; they count among the failures. `total`, about how many requests there are, gives the
    progress an end. `pictures` fetches pictures that are not the lake's.

    The answers stored so far are mostly those of the first rows: a run goes through its rows in the order of the run
    before. One that begins where those end (`begin_at`) has something to send at once, however many there are.
    """

    def __init__(
        self,
        lake: Lake,
        stage: str,
        source: str,
        model: ModelProfile,
        run_id: str,
        endpoints: Sequence[Endpoint] | None = None,
        progress: ProgressSink | None = None,
        *,
        retry: Collection[str] = (),
        total: int | None = None,
        pictures: FetchPictures | None = None,
    ) -> None:
        self._pictures = lake.images.fetch_stored if pictures is None else pictures
        self._log = lake.answers(stage, source)
        # The engine reads the requests in another thread than it commits in: looking keys up has its own handle.
        self._seen = lake.answers(stage, source)
        self._model = model
        self._run_id = run_id
        self._endpoints = endpoints
        self._progress = progress
        self._total = total
        self._earlier = rejected(lake, stage, source, retry)
        # Rows of earlier calls of `ask`, which the engine's report of this one does not count.
        self._finished = 0
        # What was stored before, as far as it was counted; `reused` gets there only when the rows come by.
        self._stored = 0
        self.wanted = 0
        self.reused = 0
        self.left = 0
        self.sent = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failures: dict[str, Failure] = dict(self._earlier.left)

    def begin_at(self, prompts: Iterable[Prompt], rows: int) -> int:
        """The row, of so many, with which to begin: all before have answers if they came in order."""
        table = self._seen.table
        mine = f"{sql.equals('model', self._model.name)} AND {sql.equals('model_revision', self._model.revision)}"
        self._stored = table.count(f"{mine} AND {sql.within('prompt_hash', {prompt.hash for prompt in prompts})}")
        return int(rows * min(1.0, self._stored / self._total)) if self._total else 0

    def ask(self, requests: Iterable[Request | None]) -> Outcome | None:
        """Returns when every request is answered durably or has failed; None when there was nothing to send.

        `requests` is consumed once, in batches; a None in it stands for a row that asks nothing. Raises what
        `answer_all` raises.
        """
        pending = self._pending(requests)
        first = next((request for request in pending if request is not None), None)
        if first is None:
            return None
        if self._endpoints is None:
            self._endpoints = endpoints_for(self._model)
        outcome = answer_all(
            chain([first], pending),
            endpoints=self._endpoints,
            log=self._log,
            pictures=self._pictures,
            run_id=self._run_id,
            price=self._model.price,
            progress=None if self._progress is None else self._report,
            options=EngineOptions(
                patience_s=self._model.patience_seconds,
                first_contact_s=self._model.patience_seconds / 10,
                # Where tokens cost money nothing is asked beside itself.
                ask_beside=not self._model.price.cost(1_000_000, 1_000_000),
            ),
        )
        self._finished += outcome.wanted
        self.sent += outcome.sent
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens
        for failure in outcome.failures:
            before = self._earlier.attempts.get(failure.request_key, 0)
            self.failures[failure.request_key] = replace(failure, attempts=failure.attempts + before)
        return outcome

    def _pending(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        """What is to be sent, with a None after every batch: the engine commits between two, however many rows in a row
        have their answers."""
        requests = iter(requests)
        while rows := list(islice(requests, BATCH)):
            batch = [request for request in rows if request is not None]
            answered = self._seen.answered({request.key for request in batch})
            self.wanted += len(batch)
            for request in batch:
                if request.key in answered:
                    self.reused += 1
                elif request.key in self.failures:
                    self.left += 1
                else:
                    yield request
            yield None

    def _report(self, progress: Progress) -> None:
        """The engine's report, with what it never saw because it was answered or left before."""
        assert self._progress is not None
        rows = self._finished + progress.rows + max(self.reused, self._stored) + self.left
        if self._total is None:
            self._progress(replace(progress, rows=rows))
            return
        total = max(self._total, rows)
        eta_s = (total - rows) / progress.rows_per_s if progress.rows_per_s > 0 else None
        self._progress(replace(progress, rows=rows, total=total, eta_s=eta_s))
