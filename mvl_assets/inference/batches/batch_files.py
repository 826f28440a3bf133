"""The two kinds of files of a batch: its requests, and the answers to them. One JSON object per line.

```
{"custom_id": "<request key>", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
{"custom_id": "<request key>", "response": {"status_code": 200, "body": {...}}, "error": null}
```

`vllm run-batch` puts the body of an HTTP error under `error`, or its message alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mvl_assets.inference.client.chat_protocol import MalformedReply, Reply, parse_reply
from mvl_assets.inference.client.faults import FaultScope, RequestFault, classify_http_status
from mvl_assets.inference.endpoint import BatchOptions
from mvl_assets.lake.batch_journal import BatchedRequest

CHAT_URL = "/v1/chat/completions"
# Errors of lines that say nothing about their requests.
EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"


class BatchFile:
    """A file of requests that grows to the limits of a batch; `requests` are those in it, line by line."""

    def __init__(self, path: Path, options: BatchOptions) -> None:
        self.path = path
        self.requests: list[BatchedRequest] = []
        self._options = options
        self._n_bytes = 0
        self._file = path.open("wb")

    @property
    def is_full(self) -> bool:
        return len(self.requests) >= self._options.max_requests

    def add(self, request: BatchedRequest, line: bytes) -> bool:
        """Append a line, and return whether there was room for it."""
        if self.is_full or self._n_bytes + len(line) > self._options.max_bytes:
            return False
        self._file.write(line)
        self._n_bytes += len(line)
        self.requests.append(request)
        return True

    def close(self) -> None:
        """End the file."""
        self._file.close()


def build_line(request_key: str, body: bytes) -> bytes:
    """Return the line of a request, whose body is JSON on one line."""
    head = json.dumps({"custom_id": request_key, "method": "POST", "url": CHAT_URL})
    return head[:-1].encode("ascii") + b', "body": ' + body + b"}\n"


def iter_request_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (request key, line) of a file of requests."""
    with path.open("rb") as file:
        for line in file:
            key = _parse_line(line).get("custom_id")
            if isinstance(key, str):
                yield key, line if line.endswith(b"\n") else line + b"\n"


def iter_results(path: Path) -> Iterator[tuple[str, Reply | RequestFault]]:
    """Yield (request key, reply or fault) of a file of answers; lines that name no request are left out."""
    with path.open("rb") as file:
        for line in file:
            document = _parse_line(line)
            key = document.get("custom_id")
            if isinstance(key, str):
                yield key, _parse_result(document)


def _parse_line(line: bytes) -> dict[str, object]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _parse_result(document: dict[str, object]) -> Reply | RequestFault:
    response, error = document.get("response"), document.get("error")
    if isinstance(response, dict) and response.get("status_code"):
        status = response["status_code"]
        content = response.get("body") or (error if isinstance(error, dict) else {"error": error})
        body = json.dumps(content).encode()
        try:
            if status == 200:
                return parse_reply(body)
            return classify_http_status(int(status), body, None)
        except MalformedReply as malformed:
            return RequestFault("malformed_reply", str(malformed), FaultScope.UNKNOWN)
        except (TypeError, ValueError):
            pass
    if isinstance(error, dict):
        code, message = str(error.get("code") or "batch_error"), " ".join(str(error.get("message") or "").split())[:300]
        if code in (EXPIRED, CANCELLED):
            return build_end_fault(code)
        return RequestFault(code, message, FaultScope.UNKNOWN)
    return RequestFault("malformed_reply", "a line of a batch's answers without an answer", FaultScope.UNKNOWN)


def build_end_fault(code: str) -> RequestFault:
    """Return the fault of a request that its batch ended without: in time, by a person, or for an unknown reason."""
    if code == EXPIRED:
        return RequestFault(code, "the batch's time ended before the request was answered", FaultScope.UNKNOWN)
    if code == CANCELLED:
        message = "somebody cancelled the batch before the request was answered; `mvl retry` asks again"
        return RequestFault(code, message, FaultScope.REQUEST)
    return RequestFault("unanswered", "the batch ended without an answer to the request", FaultScope.UNKNOWN)
