"""The one loop that asks models: leave out what is answered, send the rest, re-ask, resolve.

Each row's requests are built once. What is needed later (the row's subject and the keys of its requests) goes to a
scratch file, from which unusable answers are followed up and the rows are made, so memory does not grow with the
number of rows. The answers are the checkpoint: killed at any point and run again, the result is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.images import FetchImages
from mvl_assets.inference.progress import FailedRequest, Progress
from mvl_assets.inference.request import ModelRef, Request
from mvl_assets.lake import sql
from mvl_assets.lake.answer_lookup import TRIED_ROWS
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.errors import LeaseHeld
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.due_requests import (
    ROW_BATCH_SIZE,
    find_due_request,
    iter_due_requests,
    resolve_questions,
)
from mvl_assets.model_stage.reask import Parsed, ReaskChain, Resolution, RoundKeys
from mvl_assets.model_stage.retry_policy import load_previous_failures
from mvl_assets.model_stage.spool import RowSpool, SpooledRow
from mvl_assets.model_stage.stage import ModelStage, RequestCounts, RowRequests, ServedModel, Subject

ProgressCallback = Callable[[Progress], None]

LEASE_POLL_INTERVAL_S = 5.0


def answer_requests(
    lake: Lake,
    stage: str,
    source: str,
    model: ServedModel,
    requests: Sequence[Request],
    *,
    run_id: str,
    fetch_images: FetchImages | None = None,
) -> tuple[dict[str, str], list[FailedRequest]]:
    """Return a model's answers to a few requests, by request key, and the requests that failed.

    Answers are stored in the lake under `stage` and `source`; a stored answer is not requested again.

    Args:
        lake: The lake.
        stage: Stage under which the answers are stored.
        source: Source under which the answers are stored.
        model: The model to ask.
        requests: The requests.
        run_id: Stored with every answer.
        fetch_images: Returns image bytes by id; None to read them from the lake.
    """
    request_list = _RequestList(stage, source, [model], requests, fetch_images)
    with StageRun(lake, request_list, run_id) as run:
        run.send()
        resolved = [resolutions[0][0] for _, resolutions in run.iter_resolved()]
    texts = {resolution.request_key: resolution.parsed for resolution in resolved if resolution.parsed is not None}
    return texts, list(run.failures.values())


def count_pending_requests(lake: Lake, stage: str, source: str, requests: Sequence[Request]) -> int:
    """Count the distinct requests that `answer_requests` would send."""
    request_list = _RequestList(stage, source, [], requests, None)
    all_due = iter_due_requests(lake, request_list, request_list.iter_rows(range(len(requests))))
    return sum(due is not None and not due.is_skipped for due in all_due)


class StageRun(Generic[Subject, Parsed]):
    """One run of a stage: `send`, then `iter_resolved`. A context manager that owns the scratch files.

    Attributes:
        counts: Requests and tokens of all models.
        failures: The failed requests of this run and earlier ones, by key.
        cost: Cost over all models.
        n_sendable_rows: Rows that requests may be sent for.
    """

    def __init__(
        self,
        lake: Lake,
        stage: ModelStage[Subject, Parsed],
        run_id: str,
        *,
        retry_error_classes: Collection[str] = (),
        progress: ProgressCallback | None = None,
    ) -> None:
        self.counts = RequestCounts()
        self.failures: dict[str, FailedRequest] = {}
        self.cost = 0.0
        self.n_sendable_rows = 0
        self._lake = lake
        self._stage = stage
        self._run_id = run_id
        self._retry_error_classes = retry_error_classes
        self._progress = progress
        self._passes: list[_ModelPass[Subject, Parsed]] = []
        self._stack = ExitStack()

    def __enter__(self) -> StageRun[Subject, Parsed]:
        self._folder = self._stack.enter_context(create_scratch_dir("model-stage"))
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def send(self) -> None:
        """Send each model its unanswered requests; return when every answer is stored or the request has failed.

        Raises what `answer_all` raises.
        """
        for model in self._stage.models:
            self._send_to(model)
        for model in self._stage.choose_follow_up_models():
            self._send_to(model)

    def _send_to(self, model: ServedModel) -> None:
        model_pass = _ModelPass(
            self._lake,
            self._stage,
            model,
            self._run_id,
            self._retry_error_classes,
            self._progress,
            self._folder / f"rows-{len(self._passes)}",
        )
        self._stack.callback(model_pass.spool.close)
        self._passes.append(model_pass)
        model_pass.send()
        counts = model_pass.counts
        self.counts = self.counts + counts
        self.failures |= model_pass.failures
        self.cost += model.price.compute_cost(counts.prompt_tokens, counts.completion_tokens)
        self.n_sendable_rows = model_pass.n_sendable_rows

    def iter_resolved(self) -> Iterator[tuple[Subject, list[list[Resolution[Parsed]]]]]:
        """Yield every row, in the input's order, with the resolutions of its chains per model."""
        for rows in zip(*(model_pass.iter_resolved() for model_pass in self._passes), strict=True):
            yield rows[0][0], [resolutions for _, resolutions in rows]


def compute_resume_offset(lake: Lake, stage: ModelStage[Any, Any], model: ModelRef) -> tuple[int, int]:
    """Return the index of the row to start at, and how many answers are stored.

    Every run goes through the rows in the same order, so the stored answers are mostly those of the first rows.
    Starting after them lets a restarted run send its first request at once instead of re-checking every stored answer.
    """
    n_rows, n_requests = stage.count_rows(), stage.estimate_request_count()
    if not n_rows or not n_requests or stage.shard_name == TRIED_ROWS:
        return 0, 0
    condition = " AND ".join(
        [
            sql.equals("model", model.name),
            sql.equals("model_revision", model.revision),
            sql.is_in("prompt_hash", stage.prompt_hashes),
        ]
    )
    n_stored = lake.get_answer_lookup(stage.name, stage.source, stage.shard_name).estimate_count(condition)
    return int(n_rows * min(1.0, n_stored / n_requests)), n_stored


class _ModelPass(Generic[Subject, Parsed]):
    """One model of a stage: sends its requests, and reads the answers back."""

    def __init__(
        self,
        lake: Lake,
        stage: ModelStage[Subject, Parsed],
        model: ServedModel,
        run_id: str,
        retry_error_classes: Collection[str],
        progress: ProgressCallback | None,
        spool_path: Path,
    ) -> None:
        self.counts = RequestCounts()
        self.n_sendable_rows = 0
        self.spool: RowSpool[Subject] = RowSpool(spool_path)
        self._stage = stage
        self._model = model
        self._run_id = run_id
        self._lake = lake
        self._retry_error_classes = retry_error_classes
        self._progress = progress
        self._fetch_images = stage.fetch_images or lake.get_images(stage.source).read_stored_images
        self._log = lake.get_answer_log(stage.name, stage.source, stage.shard_name)
        # The engine reads requests in one thread and commits answers in another, so key look-ups have their own handle.
        self._answer_lookup = lake.get_answer_lookup(stage.name, stage.source, stage.shard_name)
        self._previous_failures = load_previous_failures(lake, stage.name, stage.source, retry_error_classes)
        self.failures: dict[str, FailedRequest] = dict(self._previous_failures.skipped)
        self._n_rows, self._n_requests = stage.count_rows(), stage.estimate_request_count(model)
        self._resume_offset, self._n_stored_answers = compute_resume_offset(lake, stage, model.ref)
        # Requests of the engine's first call, which the report of the second does not count.
        self._n_finished = 0
        self._n_awaiting = 0
        # The keys of chains that were followed up, by their first one; and those that another re-ask may follow.
        self._followed_keys: dict[str, tuple[str, ...]] = {}
        self._open_first_keys: set[str] = set()

    def send(self) -> None:
        """Send the unanswered requests, then re-ask those whose new answer is unusable."""
        self._finish_batches_of_other_shards()
        self._send_requests(self._iter_first_requests())
        if self._n_awaiting:
            self._send_requests(self._iter_follow_ups(self._retry_error_classes))
        if self._open_first_keys:  # a re-ask may have been cut
            self._send_requests(self._iter_follow_ups(only=frozenset(self._open_first_keys)))

    def iter_resolved(self) -> Iterator[tuple[Subject, list[Resolution[Parsed]]]]:
        """Yield every row with the resolutions of its chains, in the input's order."""
        for rows in self.spool.iter_batches():
            for row, resolutions in zip(rows, self._resolve_spooled(rows), strict=True):
                yield row.subject, resolutions

    # -- what to send ----------------------------------------------------------------------------------------------

    def _iter_first_requests(self) -> Iterator[Request | None]:
        """Yield the requests to send of every row, and None after each batch, so that the engine may commit."""
        all_rows = self._stage.iter_requests(self._model, self._resume_offset)
        rows_to_end = self._n_rows - self._resume_offset if self._resume_offset else 0
        while rows := list(islice(all_rows, min(ROW_BATCH_SIZE, rows_to_end) or ROW_BATCH_SIZE)):
            requests, spooled_rows = self._choose_requests(rows)
            self.spool.write(spooled_rows)
            yield from requests
            yield None
            if rows_to_end:
                rows_to_end -= len(rows)
                if not rows_to_end:
                    self.spool.mark_first_row()

    def _choose_requests(self, rows: Sequence[RowRequests[Subject]]) -> tuple[list[Request], list[SpooledRow[Subject]]]:
        round_keys = [RoundKeys(chain=reask_chain) for row in rows for reask_chain in row.chains]
        resolutions = iter(self._resolve([(row.subject, len(row.chains)) for row in rows], round_keys))
        keys = iter(round_keys)
        requests: list[Request] = []
        spooled_rows = []
        for row in rows:
            self.n_sendable_rows += row.may_send
            awaits_answer = []
            row_keys = []
            for reask_chain in row.chains:
                resolution, chain_keys = next(resolutions), next(keys)
                request = self._choose_request(reask_chain, resolution) if row.may_send else None
                if request is not None:
                    requests.append(request)
                awaiting = request is not None and (
                    resolution.next_round < reask_chain.auto_rounds
                    or (not resolution.n_answers and bool(self._retry_error_classes))
                )
                self._n_awaiting += awaiting
                awaits_answer.append(awaiting)
                row_keys.append(tuple(chain_keys.keys))
            longer_round = row.chains[0].longer_round if row.chains else None
            spooled_rows.append(SpooledRow(row.subject, tuple(row_keys), tuple(awaits_answer), longer_round))
        return requests, spooled_rows

    def _choose_request(self, reask_chain: ReaskChain, resolution: Resolution[Parsed]) -> Request | None:
        """Return the request to send now, and count what the chain asks for."""
        self.counts.requested += 1
        self.counts.cache_hits += bool(resolution.n_answers)
        return self._take_due_request(reask_chain, resolution, self._retry_error_classes)

    def _take_due_request(
        self, reask_chain: ReaskChain, resolution: Resolution[Parsed], retry_error_classes: Collection[str]
    ) -> Request | None:
        """Return the request to send, if any, and count it when it is a re-ask or is skipped."""
        due = find_due_request(reask_chain, resolution, self.failures, retry_error_classes)
        if due is None:
            return None
        self.counts.reasked += bool(resolution.n_answers)
        self.counts.skipped += due.is_skipped
        return None if due.is_skipped else due.request

    def _iter_follow_ups(
        self, retry_error_classes: Collection[str] = (), only: Collection[str] | None = None
    ) -> Iterator[Request | None]:
        """Yield the re-asks of the requests just sent whose answers are unusable.

        Args:
            retry_error_classes: Error classes that are asked for beyond the rounds of every run.
            only: The first keys of the chains in question; None for all that await an answer.
        """
        for rows in self.spool.iter_batches():
            awaiting_rows = [row for row in rows if any(_list_awaiting(row, only))]
            # A request that failed just now is among the failures and has no answer.
            resolved = list(zip(awaiting_rows, self._resolve_spooled(awaiting_rows), strict=True))
            unusable = [
                (row, resolutions)
                for row, resolutions in resolved
                if any(
                    awaits and resolution.error is not None
                    for awaits, resolution in zip(_list_awaiting(row, only), resolutions, strict=True)
                )
            ]
            rebuilt = list(self._stage.rebuild_requests(self._model, [row.subject for row, _ in unusable]))
            # Now with the keys of the later rounds, which only these chains need.
            round_keys = [RoundKeys(chain=chain) for row_requests in rebuilt for chain in row_requests.chains]
            all_resolutions = iter(
                self._resolve(
                    [(row_requests.subject, len(row_requests.chains)) for row_requests in rebuilt], round_keys
                )
            )
            keys = iter(round_keys)
            for (row, _), row_requests in zip(unusable, rebuilt, strict=True):
                for awaits, reask_chain in zip(_list_awaiting(row, only), row_requests.chains, strict=True):
                    resolution, chain_keys = next(all_resolutions), next(keys)
                    sent_keys = self._followed_keys.get(chain_keys.keys[0], ())
                    if awaits and resolution.error is not None and resolution.next_key not in sent_keys[1:]:
                        request = self._take_due_request(reask_chain, resolution, retry_error_classes)
                        self._followed_keys[chain_keys.keys[0]] = tuple(chain_keys.keys)
                        if request is not None and resolution.next_round < reask_chain.auto_rounds:
                            self._open_first_keys.add(chain_keys.keys[0])
                        if request is not None:
                            yield request
            yield None

    # -- resolving answers ----------------------------------------------------------------------------------------

    def _resolve_spooled(self, rows: Sequence[SpooledRow[Subject]]) -> list[list[Resolution[Parsed]]]:
        round_keys = [
            RoundKeys(self._followed_keys.get(keys[0], keys), longer_round=row.longer_round)
            for row in rows
            for keys in row.keys
        ]
        resolutions = iter(self._resolve([(row.subject, len(row.keys)) for row in rows], round_keys))
        return [list(islice(resolutions, len(row.keys))) for row in rows]

    def _resolve(self, rows: Sequence[tuple[Subject, int]], chains: Sequence[RoundKeys]) -> list[Resolution[Parsed]]:
        """Resolve the chains of `rows`, pairs of a subject and its number of chains."""
        questions = [(subject, position) for subject, n_chains in rows for position in range(n_chains)]
        return resolve_questions(self._stage, self._answer_lookup, questions, chains, self.failures)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _send_requests(self, requests: Iterator[Request | None]) -> None:
        """Send requests; if there are none, resolve no endpoint."""
        first_request = next((request for request in requests if request is not None), None)
        if first_request is None:
            return
        outcome = answer_all(
            chain([first_request], requests),
            endpoints=self._model.get_endpoints(),
            log=self._log,
            fetch_images=self._fetch_images,
            run_id=self._run_id,
            price=self._model.price,
            progress_callback=None if self._progress is None else partial(self._report_progress, self._progress),
            options=self._model.options,
        )
        self._n_finished += outcome.requested
        self.counts.attempts_sent += outcome.attempts_sent
        self.counts.prompt_tokens += outcome.prompt_tokens
        self.counts.completion_tokens += outcome.completion_tokens
        for failure in outcome.failures:
            previous_attempts = self._previous_failures.attempts_by_key.get(failure.request_key, 0)
            self.failures[failure.request_key] = replace(failure, attempts=failure.attempts + previous_attempts)

    def _finish_batches_of_other_shards(self) -> None:
        """Wait for batches that were made before the source was divided as it is now: they may hold our requests."""
        own_name = self._log.batches.table.uri
        for log in self._lake.list_related_answer_logs(self._stage.name, self._stage.source, self._stage.shard_name):
            while log.batches.table.uri != own_name and log.batches.list_batches():
                try:
                    endpoints = self._model.get_endpoints()
                    answer_all([], endpoints=endpoints, log=log, run_id=self._run_id, options=self._model.options)
                except LeaseHeld:  # another shard waits for them
                    time.sleep(LEASE_POLL_INTERVAL_S)

    def _report_progress(self, callback: ProgressCallback, progress: Progress) -> None:
        """Report the engine's progress plus the requests it never saw because they were answered or skipped."""
        n_before = self._n_finished + max(self.counts.cache_hits, self._n_stored_answers) + self.counts.skipped
        n_finished = n_before + progress.n_finished
        if self._n_requests is None:
            callback(replace(progress, n_finished=n_finished))
            return
        total = max(self._n_requests, n_finished)
        eta_s = (total - n_finished) / progress.requests_per_s if progress.requests_per_s > 0 else None
        callback(replace(progress, n_finished=n_finished, total=total, eta_s=eta_s))


def _list_awaiting(row: SpooledRow[Any], only: Collection[str] | None) -> list[bool]:
    """Return, per chain of a row, whether it awaits an answer and is one of `only`."""
    return [
        awaits and (only is None or keys[0] in only) for awaits, keys in zip(row.awaits_answer, row.keys, strict=True)
    ]


class _RequestList(ModelStage[int, str]):
    """A stage over a given list of requests, whose answers are used as they are."""

    def __init__(
        self,
        name: str,
        source: str,
        models: Sequence[ServedModel],
        requests: Sequence[Request],
        fetch_images: FetchImages | None,
    ) -> None:
        self.name = name
        self.source = source
        self.models = models
        self.fetch_images = fetch_images
        self._requests = requests

    def iter_requests(
        self, model: ServedModel, rotate_from: int = 0, *, sendable_only: bool = False
    ) -> Iterator[RowRequests[int]]:
        return self.iter_rows(range(len(self._requests)))

    def rebuild_requests(self, model: ServedModel, subjects: Sequence[int]) -> Iterator[RowRequests[int]]:
        return self.iter_rows(subjects)

    def iter_rows(self, subjects: Sequence[int]) -> Iterator[RowRequests[int]]:
        """Yield the requests at these positions of the list, whatever the model."""
        return (RowRequests(index, [ReaskChain(self._requests[index])]) for index in subjects)

    def parse(
        self, subject: int, position: int, request_key: str, answer: Mapping[str, Any], length_factor: int = 1
    ) -> str:
        return answer["text"]
