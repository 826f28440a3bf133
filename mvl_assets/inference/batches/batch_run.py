"""Answers requests in batches: writes them to files, hands these to the server, and waits, however long it takes.

A batch goes through four states, each of which is in the journal of the answer log before the next begins:

| state | in the journal | after a kill |
|---|---|---|
| planned | its requests | nothing was made: its requests are sent anew |
| uploaded | the file too | the batch may have been made: the server is asked for one of its name or file |
| made | the batch too | its answers are waited for |
| stored | nothing any more | its answers are in the log |

A batch of unknown fate is looked for until the server's list must have it. Then its file is deleted, so that a call
that is still on its way cannot make it any more, and it is looked for once more.

What came back with a fault that may pass, or not at all, goes into another batch, line by line as it was in the file.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvl_assets.errors import MvlError
from mvl_assets.inference.batches.batch_api import BatchApi, BatchApiError, RemoteBatch, is_certain_rejection
from mvl_assets.inference.batches.batch_files import (
    CANCELLED,
    EXPIRED,
    BatchFile,
    build_end_fault,
    build_line,
    iter_request_lines,
    iter_results,
)
from mvl_assets.inference.batches.batch_folder import BatchFolder
from mvl_assets.inference.client.chat_protocol import Reply, build_request_body
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.client.transport import Transport
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.images import FetchImages, ImageFault, load_images
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import FailedRequest, Progress, RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling.progress_reporter import ProgressReporter
from mvl_assets.inference.scheduling.request_queue import read_chunk
from mvl_assets.inference.scheduling.run_context import RunTasks
from mvl_assets.lake.answers import AnswerLog
from mvl_assets.lake.batch_journal import BatchedRequest, StoredBatch
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.schemas.rows import Answer

LEASE_RENEWAL_INTERVAL_S = 10.0
READ_CHUNK_SIZE = 256
# Requests whose images are in memory at a time.
IMAGE_CHUNK_SIZE = 16
ANSWERS_PER_COMMIT = 2048
MAX_WAIT_TO_CREATE_S = 600.0


@dataclass(slots=True)
class _OpenBatch:
    """A batch whose answers are not stored yet.

    Attributes:
        keys: Its requests, of a batch that an earlier run has made; None where this run has read them all.
        retry_at: When to make it again after the server refused to, on the loop's clock.
    """

    stored: StoredBatch
    n_requests: int
    keys: IdSet | None = None
    remote: RemoteBatch | None = None
    retry_at: float = 0.0
    n_refused: int = 0
    refusal: str = ""


@dataclass(slots=True)
class _Results:
    """What came back of one batch: the keys that are answered, and the fault of every other one."""

    answered: set[str] = field(default_factory=set)
    faults: dict[str, RequestFault] = field(default_factory=dict)


class BatchRun:
    """One call of `answer_all` to a server with batch endpoints."""

    def __init__(
        self,
        endpoint: Endpoint,
        log: AnswerLog,
        fetch_images: FetchImages | None,
        run_id: str,
        reporter: ProgressReporter,
        progress_callback: Callable[[Progress], None] | None,
        options: EngineOptions,
    ) -> None:
        assert endpoint.batch is not None
        self.tasks = RunTasks()
        self._batch_options = endpoint.batch
        self._log = log
        self._journal = log.batches
        self._fetch_images = fetch_images
        self._run_id = run_id
        self._reporter = reporter
        self._progress_callback = progress_callback
        self._options = options
        self._transport = Transport()
        # Only for the probes: how it takes constraints, and how long its context is.
        self._client = EndpointClient(endpoint, options)
        folder = endpoint.batch_folder
        self._api: BatchApi | BatchFolder = (
            BatchApi(self._transport, endpoint, options) if folder is None else BatchFolder(folder)
        )
        self._outcome = RunOutcome()
        self._error_counts: Counter[str] = Counter()
        self._open: dict[str, _OpenBatch] = {}
        # Keys of open batches that this run has read; keys that failed in it.
        self._awaited: set[str] = set()
        self._failed_keys: set[str] = set()
        self._all_read = False
        # Requests that did not fit into the last file.
        self._unsent: deque[tuple[BatchedRequest, bytes]] = deque()

    async def run(self, requests: Iterator[Request | None]) -> RunOutcome:
        """Return when every request is answered durably or has failed."""
        started_at = time.monotonic()
        self._transport.get_headers(self._client.endpoint)
        try:
            with create_scratch_dir("batches") as folder:
                async with self._transport:
                    try:
                        self.tasks.spawn(self._run_to_end(requests, folder))
                        self.tasks.spawn(self._renew_lease())
                        self.tasks.spawn(self._report_progress())
                        await self.tasks.wait_until_finished()
                    finally:
                        await self.tasks.cancel_all()
        finally:
            self.tasks.shut_down_log_thread()
        self._outcome.elapsed_s = time.monotonic() - started_at
        self._send_report()
        return self._outcome

    async def _run_to_end(self, requests: Iterator[Request | None], folder: Path) -> None:
        await self._take_up()
        while True:
            # Reading comes first: whether an earlier run's request is still wanted is known once it is read.
            await self._fill(requests, folder)
            for batch in list(self._open.values()):
                await self._advance(batch, folder)
            if not self._open and not self._has_more:
                self.tasks.finish()
                return
            await asyncio.sleep(self._batch_options.poll_interval_s)

    @property
    def _has_more(self) -> bool:
        return not self._all_read or bool(self._unsent)

    # -- making batches ------------------------------------------------------------------------------------------------

    async def _fill(self, requests: Iterator[Request | None], folder: Path) -> None:
        """Make batches of what is still to be sent, as many as the server may have at a time."""
        while self._has_more and len(self._open) < self._batch_options.max_open:
            file = BatchFile(folder / f"{uuid.uuid4().hex}.jsonl", self._batch_options)
            while not file.is_full and self._has_more:
                if not self._unsent:
                    await self._read(requests)
                elif file.add(*self._unsent[0]):
                    self._unsent.popleft()
                else:
                    break
            file.close()
            if file.requests:
                await self._submit(await self._plan(file, attempt=1), file)

    async def _read(self, requests: Iterator[Request | None]) -> None:
        """Read a few requests, and make lines of those that are to be sent."""
        chunk, self._all_read = await self.tasks.run_on_log_thread(read_chunk, requests, READ_CHUNK_SIZE)
        self._outcome.requested += len(chunk)
        new_requests: dict[str, Request] = {}
        for request in chunk:
            if request.key in self._awaited or request.key in self._failed_keys or request.key in new_requests:
                self._outcome.deduplicated += 1
            else:
                new_requests[request.key] = request
        if not new_requests:
            return
        answered = await self.tasks.run_on_log_thread(self._log.find_answered, list(new_requests))
        self._outcome.cache_hits += len(answered)
        due = [request for key, request in new_requests.items() if key not in answered]
        self._awaited.update(request.key for request in due)
        keys = [request.key for request in due]
        is_sent = [False] * len(due)
        for batch in self._open.values():
            if batch.keys is not None:
                is_sent = [bool(sent or is_in) for sent, is_in in zip(is_sent, batch.keys.contains(keys), strict=True)]
        unsent = [request for request, sent in zip(due, is_sent, strict=True) if not sent]
        for start in range(0, len(unsent), IMAGE_CHUNK_SIZE):
            await self._encode(unsent[start : start + IMAGE_CHUNK_SIZE])

    async def _encode(self, requests: list[Request]) -> None:
        images: Mapping[str, bytes | ImageFault] = {}
        if image_ids := [image_id for request in requests for image_id in request.image_ids]:
            if self._fetch_images is None:
                raise MvlError("a request holds an image, and no way to fetch images was given")
            max_image_side = self._client.endpoint.max_image_side
            images = await asyncio.to_thread(load_images, self._fetch_images, image_ids, max_image_side)
        for request in requests:
            faults = [image for i in request.image_ids if isinstance(image := images[i], ImageFault)]
            fault = RequestFault(faults[0].error, faults[0].message, FaultScope.REQUEST) if faults else None
            if fault is None:
                fault = await self._probe_endpoint(request)
            if fault is not None:
                self._fail(request.key, fault, 0)
                continue
            loaded = {i: image for i in request.image_ids if isinstance(image := images[i], bytes)}
            line = build_line(request.key, build_request_body(request, self._client.endpoint, loaded))
            if len(line) > self._batch_options.max_bytes:
                message = f"{len(line):,} bytes, and a batch may have {self._batch_options.max_bytes:,} (max_mb)"
                self._fail(request.key, RequestFault("too_large", message, FaultScope.REQUEST), 0)
                continue
            is_constrained = request.output.kind != "text"
            self._unsent.append(
                (
                    BatchedRequest(
                        request.key,
                        request.model.name,
                        request.model.revision,
                        request.prompt_name,
                        request.prompt_hash,
                        self._client.endpoint.output_form if is_constrained else None,
                    ),
                    line,
                )
            )

    async def _probe_endpoint(self, request: Request) -> RequestFault | None:
        """Find out once what a request's body depends on; return the fault of one that cannot be sent."""
        if not self._client.is_form_known(request.output):
            fault = await self._client.find_output_form(self._transport, request.output)
            if fault is not None:
                raise EndpointError(
                    f"{self._client.endpoint.redacted_url} cannot be asked how it takes constraints: {fault.message}",
                    hint="say output_form and logprobs of the model in the profile, or run again later",
                )
        if request.cut_answer is not None and self._client.endpoint.batch_folder is None:
            await self._client.find_context(self._transport)
            return self._client.find_context_fault(request)
        return None

    async def _plan(self, file: BatchFile, attempt: int) -> _OpenBatch:
        """Store what a batch will hold, before anything of it leaves this machine."""
        stored = StoredBatch(uuid.uuid4().hex, attempt, self._client.endpoint.redacted_url, dt.datetime.now(dt.UTC))
        await self.tasks.run_on_log_thread(self._journal.save, stored, file.requests)
        batch = self._open[stored.name] = _OpenBatch(stored, len(file.requests))
        return batch

    async def _submit(self, batch: _OpenBatch, file: BatchFile) -> None:
        file_id = await self._api.send_file(file.path, _build_file_name(batch.stored))
        file.path.unlink()
        await self._store_state(batch, file_id=file_id, batch_id=None)
        await self._create(batch)

    async def _store_state(self, batch: _OpenBatch, *, file_id: str | None, batch_id: str | None) -> None:
        def advance() -> StoredBatch:
            return self._journal.advance(batch.stored, file_id=file_id, batch_id=batch_id)

        batch.stored = await self.tasks.run_on_log_thread(advance)

    async def _create(self, batch: _OpenBatch) -> None:
        """Have the server make a batch. Where it is not certain that it has not, the batch is looked for."""
        stored = batch.stored
        assert stored.file_id is not None
        try:
            remote = await self._api.create_batch(stored.name, stored.file_id, self._batch_options.window)
        except BatchApiError as error:
            made = None if is_certain_rejection(error.fault) else await self._find_settled(stored)
            if made is None:
                self._on_refused(batch, error.fault)
                return
            remote = made
        self._outcome.attempts_sent += batch.n_requests
        batch.remote, batch.n_refused, batch.refusal = remote, 0, ""
        await self._store_state(batch, file_id=stored.file_id, batch_id=remote.batch_id)

    async def _find_settled(self, stored: StoredBatch) -> RemoteBatch | None:
        """Return the batch that the server has made of a file; None once its list would have it."""
        assert stored.file_id is not None
        deadline = time.time() + self._batch_options.settle_s
        while True:
            is_settled = time.time() >= deadline
            made = await self._api.find_batch(stored.name, stored.file_id, stored.updated_at.timestamp())
            if made is not None or is_settled:
                return made
            await asyncio.sleep(min(1.0, self._batch_options.settle_s / 4))

    def _on_refused(self, batch: _OpenBatch, fault: RequestFault) -> None:
        """Make a batch again later, such as when the server has room for its tokens.

        Raises:
            EndpointError: That would not help, or not while no other batch is on its way.
        """
        batch.n_refused += 1
        batch.refusal = fault.message
        is_alone = not any(other.stored.batch_id for other in self._open.values())
        wait_s = min(MAX_WAIT_TO_CREATE_S, self._batch_options.poll_interval_s * 2 ** min(batch.n_refused - 1, 20))
        waited_s = wait_s * 2 if batch.n_refused > 1 else 0.0
        is_limit = "limit" in fault.message or fault.scope not in (FaultScope.REQUEST, FaultScope.CONFIG)
        if not is_limit or (is_alone and waited_s > self._options.outage_timeout_s):
            self._api.refuse(fault)
        self._error_counts[fault.error] += 1
        batch.retry_at = self.tasks.loop.time() + max(wait_s, fault.retry_after_s or 0.0)

    # -- resuming ------------------------------------------------------------------------------------------------------

    async def _take_up(self) -> None:
        """Take up the batches of earlier runs; forget those that were never made.

        Raises:
            EndpointError: They are on another server.
        """
        url = self._client.endpoint.redacted_url
        for stored in await self.tasks.run_on_log_thread(self._journal.list_batches):
            if stored.endpoint != url:
                raise EndpointError(
                    f"requests of {self._log.stage} {self._log.source} are in a batch at {stored.endpoint}, not {url}",
                    hint="give the model that address until its batches are done, or give them up: "
                    "`mvl batches --forget`",
                )
            keys = await self.tasks.run_on_log_thread(lambda name=stored.name: IdSet(self._journal.iter_keys(name)))
            batch = _OpenBatch(stored, len(keys), keys)
            if stored.batch_id is None and not await self._find_made(batch):
                await self.tasks.run_on_log_thread(self._journal.remove, stored.name)
            else:
                self._open[stored.name] = batch

    async def _find_made(self, batch: _OpenBatch) -> bool:
        """Return whether a batch of unknown fate was made; see to it that it cannot be any more if it was not."""
        stored = batch.stored
        if stored.file_id is None:
            file_id = await self._api.find_file(_build_file_name(stored))
            if file_id is not None:
                await self._api.delete_file(file_id)
            return False
        made = await self._find_settled(stored)
        if made is None:
            await self._api.delete_file(stored.file_id)
            made = await self._api.find_batch(stored.name, stored.file_id, stored.updated_at.timestamp())
        if made is None:
            return False
        await self._store_state(batch, file_id=stored.file_id, batch_id=made.batch_id)
        return True

    # -- waiting for batches, and storing their answers ----------------------------------------------------------------

    async def _advance(self, batch: _OpenBatch, folder: Path) -> None:
        """Look at a batch, and store its answers once it has ended."""
        stored = batch.stored
        if stored.batch_id is None:
            if self.tasks.loop.time() >= batch.retry_at:
                await self._create(batch)
            return
        batch.remote = remote = await self._api.read_batch(stored.batch_id)
        if not remote.has_ended:
            return
        if remote.status == "failed" and not any(error.line for error in remote.errors):
            await self._on_failed(batch, remote)
            return
        requests = await self.tasks.run_on_log_thread(self._journal.read_requests, stored.name)
        results = _Results()
        for file_id in remote.output_file_ids:
            await self._store_answers(batch, remote, file_id, requests, results, folder)
        self._add_missing(remote, requests, results)
        await self._settle(batch, requests, results, folder)
        await self.tasks.run_on_log_thread(self._journal.remove, stored.name)
        del self._open[stored.name]
        if stored.file_id is not None:
            await self._api.delete_file(stored.file_id)

    async def _on_failed(self, batch: _OpenBatch, remote: RemoteBatch) -> None:
        """Make a batch again that the server had no room for; end the run if it refused its file as a whole."""
        error = next(iter(remote.errors), None)
        message = "no reason given" if error is None else f"{error.code}: {error.message}"
        if error is not None and "limit" in error.code:
            await self._store_state(batch, file_id=batch.stored.file_id, batch_id=None)
            self._on_refused(batch, RequestFault(error.code, message, FaultScope.ENDPOINT))
            return
        await self.tasks.run_on_log_thread(self._journal.remove, batch.stored.name)
        self._api.refuse(RequestFault("batch_failed", f"a batch failed, {message}", FaultScope.CONFIG))

    async def _store_answers(
        self,
        batch: _OpenBatch,
        remote: RemoteBatch,
        file_id: str,
        requests: Mapping[str, BatchedRequest],
        results: _Results,
        folder: Path,
    ) -> None:
        """Store the answers in one file of a batch, and collect its faults."""
        path = folder / f"{batch.stored.name}-answers.jsonl"
        try:
            await self._api.download_file(file_id, path)
        except BatchApiError as error:
            raise EndpointError(
                f"the answers of the batch {remote.batch_id} are not there ({error.fault.message})",
                hint="if they are lost, `mvl batches --forget` gives them up; their requests are then paid again",
            ) from error
        answers: list[Answer] = []
        for key, result in iter_results(path):
            request = requests.get(key)
            if request is None:
                continue  # not ours
            if isinstance(result, Reply):
                results.answered.add(key)
                answers.append(self._build_answer(batch, remote, request, result))
            else:
                results.faults.setdefault(key, result)
            if len(answers) >= ANSWERS_PER_COMMIT:
                await self._append(answers)
                answers = []
        await self._append(answers)
        path.unlink()

    async def _append(self, answers: list[Answer]) -> None:
        if not answers:
            return
        await self.tasks.run_on_log_thread(self._log.append, answers)
        for answer in answers:
            if answer.request_key in self._awaited:
                self._awaited.discard(answer.request_key)
                self._outcome.answered += 1
                self._outcome.prompt_tokens += answer.prompt_tokens
                self._outcome.completion_tokens += answer.completion_tokens

    def _build_answer(self, batch: _OpenBatch, remote: RemoteBatch, request: BatchedRequest, reply: Reply) -> Answer:
        return Answer(
            request_key=request.request_key,
            source=self._log.source,
            stage=self._log.stage,
            model=request.model,
            model_revision=request.model_revision,
            prompt=request.prompt,
            prompt_hash=request.prompt_hash,
            text=reply.text,
            finish_reason=reply.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            first_token_logprobs=reply.first_token_logprobs,
            latency_s=max(0.0, (remote.ended_at or time.time()) - remote.created_at),
            attempts=batch.stored.attempt,
            run_id=self._run_id,
            created_at=dt.datetime.now(dt.UTC),
            reasoning=reply.reasoning,
            output_form=request.output_form,
        )

    def _add_missing(self, remote: RemoteBatch, requests: Mapping[str, BatchedRequest], results: _Results) -> None:
        """Add the faults of the requests that the server says nothing about."""
        keys = list(requests)
        for error in remote.errors:
            if error.line is not None and 1 <= error.line <= len(keys):
                fault = RequestFault(error.code, f"{error.message} (refused in its batch)", FaultScope.REQUEST)
                results.faults.setdefault(keys[error.line - 1], fault)
        code = {"expired": EXPIRED, "cancelled": CANCELLED}.get(remote.status, "")
        for key in keys:
            if key not in results.answered:
                results.faults.setdefault(key, build_end_fault(code))

    async def _settle(
        self, batch: _OpenBatch, requests: Mapping[str, BatchedRequest], results: _Results, folder: Path
    ) -> None:
        """Fail the requests that have no hope, and put the others into another batch.

        Those that this run has not read are left to when it reads them: they may not be wanted any more.
        """
        stored = batch.stored
        in_other = self._find_in_other_batches(stored.name, list(results.faults))
        reasked: dict[str, RequestFault] = {}
        for key, fault in results.faults.items():
            self._error_counts[fault.error] += 1
            if key in results.answered or key in in_other or key not in self._awaited:
                continue
            if fault.scope is FaultScope.REQUEST or stored.attempt >= self._options.max_attempts:
                self._fail(key, fault, stored.attempt)
            else:
                reasked[key] = fault
        if not reasked:
            return
        file = BatchFile(folder / f"{stored.name}-again.jsonl", self._batch_options)
        input_path = folder / f"{stored.name}-requests.jsonl"
        try:
            await self._api.download_file(stored.file_id or "", input_path)
            for key, line in iter_request_lines(input_path):
                if key in reasked and key in requests:
                    file.add(requests[key], line)
            input_path.unlink()
        except BatchApiError:
            pass  # its file is not there any more
        file.close()
        for key in reasked.keys() - {request.request_key for request in file.requests}:
            self._fail(key, reasked[key], stored.attempt)
        if file.requests:
            await self._submit(await self._plan(file, stored.attempt + 1), file)

    def _find_in_other_batches(self, name: str, keys: list[str]) -> set[str]:
        """Return the keys that are in another batch of an earlier run, which a kill has left beside this one."""
        shared: set[str] = set()
        for other in self._open.values():
            if other.stored.name != name and other.keys is not None:
                shared.update(key for key, is_in in zip(keys, other.keys.contains(keys), strict=True) if is_in)
        return shared

    def _fail(self, key: str, fault: RequestFault, attempts: int) -> None:
        self._awaited.discard(key)
        self._failed_keys.add(key)
        self._outcome.failures.append(FailedRequest(key, fault.error, fault.message, attempts))

    # -- periodic tasks ------------------------------------------------------------------------------------------------

    async def _renew_lease(self) -> None:
        while True:
            await self.tasks.run_on_log_thread(self._log.renew)
            await asyncio.sleep(LEASE_RENEWAL_INTERVAL_S)

    async def _report_progress(self) -> None:
        while True:
            self._send_report()
            await asyncio.sleep(self._options.progress_interval_s)

    def _send_report(self) -> None:
        if self._progress_callback is None:
            return
        states = Counter(_describe_state(batch) for batch in self._open.values())
        self._progress_callback(
            self._reporter.build_batch_report(
                self._outcome,
                self._error_counts,
                dict(states),
                n_in_batches=sum(batch.n_requests for batch in self._open.values()),
                n_answered_in_batches=sum(b.remote.n_completed for b in self._open.values() if b.remote is not None),
            )
        )


def _describe_state(batch: _OpenBatch) -> str:
    if batch.remote is not None and batch.stored.batch_id is not None:
        return batch.remote.status
    if batch.n_refused:
        return f"refused ({batch.refusal[:80]})"
    return "uploading" if batch.stored.file_id is None else "uploaded"


def _build_file_name(stored: StoredBatch) -> str:
    return f"mvl-{stored.name}.jsonl"
