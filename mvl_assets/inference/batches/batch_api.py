"""The batch endpoints of the OpenAI API: files of requests, and batches of them.

Whatever may be repeated is repeated until the server answers, or has not for as long as a run tolerates. Making a batch
may not: it costs money, so a caller whose call got no answer looks for the batch first.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import aiohttp

from mvl_assets.inference.client.chat_protocol import MalformedReply
from mvl_assets.inference.client.faults import FaultScope, RequestFault, classify_http_status, compute_backoff_s
from mvl_assets.inference.client.transport import CONNECT_TIMEOUT_S, Transport, build_connection_fault, read_body
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.options import EngineOptions

CALL_TIMEOUT_S = 120.0
# A file of 200 MB over a line of 0.5 Mbit/s.
TRANSFER_TIMEOUT_S = 3600.0
PAGE_SIZE, MAX_PAGES = 100, 100
# By how much the clocks of the server and of this machine may differ.
CLOCK_SKEW_S = 24 * 3600.0
ENDED_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})
METADATA_KEY = "mvl_batch"

Result = TypeVar("Result")


class BatchApiError(Exception):
    """A call that will not succeed by repeating it."""

    def __init__(self, fault: RequestFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class BatchError:
    """What is wrong with a batch, or with one line of its file, counted from 1."""

    code: str
    message: str
    line: int | None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its server describes it."""

    batch_id: str
    status: str
    file_id: str | None
    name: str | None
    created_at: float
    ended_at: float | None
    output_file_ids: tuple[str, ...]
    errors: tuple[BatchError, ...]
    n_requests: int
    n_completed: int
    n_failed: int

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED_STATUSES


class BatchApi:
    """The batch endpoints of one server."""

    def __init__(self, transport: Transport, endpoint: Endpoint, options: EngineOptions) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._options = options
        self._rng = random.Random()

    async def send_file(self, path: Path, file_name: str) -> str:
        """Upload a file of requests, and return the server's name of it."""

        async def send() -> str:
            with path.open("rb") as file:
                form = aiohttp.FormData()
                form.add_field("purpose", "batch")
                form.add_field("file", file, filename=file_name, content_type="application/jsonl")
                document = await self._call("POST", self._endpoint.files_url, TRANSFER_TIMEOUT_S, data=form)
            return _get_id(document)

        return await self._call_until_answered(send)

    async def delete_file(self, file_id: str) -> None:
        """Delete a file if the server lets us; one that stays costs nothing but room."""
        with suppress(BatchApiError, EndpointError):
            await self._call("DELETE", f"{self._endpoint.files_url}/{file_id}")

    async def find_file(self, file_name: str) -> str | None:
        """Return the server's name of an uploaded file; None where it does not list it."""
        with suppress(BatchApiError):
            async for document in self._list_documents(f"{self._endpoint.files_url}?purpose=batch", lambda _: True):
                if document.get("filename") == file_name:
                    return _get_id(document)
        return None

    async def create_batch(self, name: str, file_id: str, window: str) -> RemoteBatch:
        """Make a batch, in one call that is not repeated.

        Raises:
            BatchApiError: There was no answer that says so; the batch may have been made all the same unless the fault
                is one of `is_certain_rejection`.
        """
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": window,
            "metadata": {METADATA_KEY: name},
        }
        document = await self._call(
            "POST", self._endpoint.batches_url, json_body=body, headers={"Idempotency-Key": name}
        )
        return _parse_batch(document)

    async def find_batch(self, name: str, file_id: str, since: float) -> RemoteBatch | None:
        """Return the batch of a name or file that was made since a time, if there is one.

        One that failed is left out: the server refused its file as a whole, so nothing of it was answered.
        """
        async for document in self._list_documents(
            self._endpoint.batches_url, lambda oldest: oldest.get("created_at", since) >= since - CLOCK_SKEW_S
        ):
            batch = _parse_batch(document)
            if (batch.name == name or batch.file_id == file_id) and batch.status != "failed":
                return batch
        return None

    async def read_batch(self, batch_id: str) -> RemoteBatch:
        """Return a batch as it is now.

        Raises:
            EndpointError: The server does not know it.
        """
        try:
            return await self._call_until_answered(
                lambda: self._read(f"{self._endpoint.batches_url}/{batch_id}"), missing_is_final=True
            )
        except BatchApiError as error:
            raise EndpointError(
                f"{self._endpoint.redacted_url} does not know the batch {batch_id}: {error.fault.message}",
                hint="check the account that the key is of; `mvl batches --forget` gives up what is lost",
            ) from error

    async def _read(self, url: str) -> RemoteBatch:
        return _parse_batch(await self._call("GET", url))

    async def download_file(self, file_id: str, path: Path) -> None:
        """Write the content of a file to `path`.

        Raises:
            BatchApiError: The server does not have it.
        """

        async def download() -> None:
            timeout = aiohttp.ClientTimeout(
                total=TRANSFER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=CALL_TIMEOUT_S
            )
            url = f"{self._endpoint.files_url}/{file_id}/content"
            try:
                async with self._transport.open_request("GET", self._endpoint, url, timeout) as response:
                    if response.status != 200:
                        raise BatchApiError(self._classify(response, await read_body(response)))
                    with path.open("wb") as file:
                        async for chunk in response.content.iter_chunked(1 << 16):
                            file.write(chunk)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                raise BatchApiError(build_connection_fault(error, CALL_TIMEOUT_S)) from error

        await self._call_until_answered(download, missing_is_final=True)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _list_documents(self, url: str, is_recent: Callable[[Mapping[str, Any]], bool]) -> Any:
        """Yield the entries of a list, the newest first, page by page while the oldest one of a page is wanted."""
        separator = "&" if "?" in url else "?"
        after = ""
        for _ in range(MAX_PAGES):
            page_url = f"{url}{separator}limit={PAGE_SIZE}{after}"
            page = await self._call_until_answered(lambda page_url=page_url: self._call("GET", page_url))  # type: ignore[misc]
            documents = [document for document in page.get("data") or () if isinstance(document, dict)]
            for document in documents:
                yield document
            if not page.get("has_more") or not documents or not is_recent(documents[-1]):
                return
            after = f"&after={_get_id(documents[-1])}"

    async def _call(
        self,
        method: str,
        url: str,
        timeout_s: float = CALL_TIMEOUT_S,
        *,
        json_body: Any = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Make one call, and return the JSON object of its answer. Raises `BatchApiError`."""
        if json_body is not None:
            arguments["data"] = json.dumps(json_body).encode()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._transport.open_request(method, self._endpoint, url, timeout, **arguments) as response:
                content = await read_body(response)
                if response.status not in (200, 201):
                    raise BatchApiError(self._classify(response, content))
            document = json.loads(content)
            if not isinstance(document, dict):
                raise MalformedReply("not a JSON object")
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise BatchApiError(build_connection_fault(error, timeout_s)) from error
        except (ValueError, RecursionError) as error:
            message = self._transport.mask_secrets(self._endpoint, f"not an answer of the batch API: {error}"[:300])
            raise BatchApiError(RequestFault("malformed_reply", message, FaultScope.UNKNOWN)) from error
        return document

    def _classify(self, response: aiohttp.ClientResponse, content: bytes) -> RequestFault:
        fault = classify_http_status(response.status, content, response.headers.get("Retry-After"))
        message = self._transport.mask_secrets(self._endpoint, fault.message)
        return RequestFault(fault.error, message, fault.scope, fault.retry_after_s)

    async def _call_until_answered(
        self, call: Callable[[], Awaitable[Result]], *, missing_is_final: bool = False
    ) -> Result:
        """Make a call again until it succeeds, for as long as an outage may last.

        Args:
            call: The call.
            missing_is_final: Whether the caller handles what the server does not have.

        Raises:
            BatchApiError: The server refuses this very call.
            EndpointError: It refuses every call, or has not answered for too long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.outage_timeout_s
        for n_failed in range(1, 1 << 30):
            try:
                return await call()
            except BatchApiError as error:
                fault = error.fault
                if fault.scope is FaultScope.REQUEST or (missing_is_final and fault.error == "http_404"):
                    raise
                if fault.scope is FaultScope.CONFIG or loop.time() >= deadline:
                    self.refuse(fault)
                backoff_s = compute_backoff_s(
                    n_failed, self._options.backoff_base_s, self._options.backoff_cap_s, self._rng
                )
                await asyncio.sleep(max(backoff_s, fault.retry_after_s or 0.0))
        raise AssertionError("unreachable")

    def refuse(self, fault: RequestFault) -> NoReturn:
        """End the run because of a fault of the server."""
        raise EndpointError(
            f"the batch API of {self._endpoint.redacted_url} cannot be used: {fault.message}",
            hint="correct the key, base_urls or `batch` of the model in the profile, and run again; batches that are on"
            " their way are found again",
        )


def is_certain_rejection(fault: RequestFault) -> bool:
    """Return whether a failed call has certainly made no batch."""
    return fault.scope in (FaultScope.REQUEST, FaultScope.CONFIG) or fault.error in ("no_connection", "http_429")


def _get_id(document: Mapping[str, Any]) -> str:
    file_id = document.get("id")
    if not isinstance(file_id, str) or not file_id:
        raise BatchApiError(RequestFault("malformed_reply", "an answer without an id", FaultScope.UNKNOWN))
    return file_id


def _parse_batch(document: Mapping[str, Any]) -> RemoteBatch:
    """Return a batch from its JSON object; what a server leaves out is taken for nothing."""
    counts = document.get("request_counts") or {}
    metadata = document.get("metadata") or {}
    ended_at = next((document[f"{s}_at"] for s in ENDED_STATUSES if document.get(f"{s}_at")), None)
    return RemoteBatch(
        batch_id=_get_id(document),
        status=str(document.get("status")),
        file_id=document.get("input_file_id"),
        name=metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None,
        created_at=float(document.get("created_at") or 0.0),
        ended_at=None if ended_at is None else float(ended_at),
        output_file_ids=tuple(
            document[name] for name in ("output_file_id", "error_file_id") if isinstance(document.get(name), str)
        ),
        errors=tuple(_iter_errors(document.get("errors"))),
        n_requests=int(counts.get("total") or 0),
        n_completed=int(counts.get("completed") or 0),
        n_failed=int(counts.get("failed") or 0),
    )


def _iter_errors(errors: Any) -> Iterator[BatchError]:
    entries = errors.get("data") if isinstance(errors, dict) else errors
    for entry in entries or ():
        if isinstance(entry, dict):
            line = entry.get("line")
            yield BatchError(
                str(entry.get("code") or "invalid"),
                " ".join(str(entry.get("message") or "").split())[:300],
                line if isinstance(line, int) else None,
            )
