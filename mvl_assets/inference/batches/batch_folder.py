"""Batches in a folder, for `vllm run-batch`, which reads a file of requests and writes a file of answers.

`base_urls: [file:///shared/batches]` with `mode: batch`. A batch is its file of requests; it has ended when the file of
the same name in `answers/` has a whole line for each of them: vLLM writes it at the end, from the first line on.

    /shared/batches/mvl-<name>.jsonl
    /shared/batches/answers/mvl-<name>.jsonl

The methods are those of `BatchApi`. Nothing is paid by making a batch, so it may be made twice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import NoReturn

from mvl_assets.inference.batches.batch_api import BatchApiError, RemoteBatch
from mvl_assets.inference.client.faults import FaultScope, RequestFault
from mvl_assets.inference.endpoint import EndpointError

ANSWERS_FOLDER = "answers"
READ_BYTES = 1 << 20


class BatchFolder:
    """The batches in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Lines of files that are not written any more, by path, size and time.
        self._line_counts: dict[tuple[Path, int, int], int] = {}

    async def send_file(self, path: Path, file_name: str) -> str:
        """Put a file of requests into the folder, whole or not at all."""

        def send() -> None:
            (self._folder / ANSWERS_FOLDER).mkdir(parents=True, exist_ok=True)
            partial = self._folder / f".{file_name}.part"
            with path.open("rb") as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, READ_BYTES)
                target.flush()
                os.fsync(target.fileno())
            partial.replace(self._folder / file_name)

        try:
            await asyncio.to_thread(send)
        except OSError as error:
            self.refuse(RequestFault("folder", str(error), FaultScope.CONFIG))
        return file_name

    async def delete_file(self, file_id: str) -> None:
        """Delete a file of requests and its answers."""
        for path in (self._folder / file_id, self._get_answers(file_id)):
            path.unlink(missing_ok=True)

    async def find_file(self, file_name: str) -> str | None:
        """Return the name of a file that is there."""
        return file_name if (self._folder / file_name).exists() else None

    async def create_batch(self, name: str, file_id: str, window: str) -> RemoteBatch:
        """Return the batch that a file of requests is.

        Raises:
            BatchApiError: The file is not there.
        """
        batch = await self.find_batch(name, file_id, 0.0)
        if batch is None:
            raise BatchApiError(RequestFault("no_file", f"{self._folder / file_id} is not there", FaultScope.REQUEST))
        return batch

    async def find_batch(self, name: str, file_id: str, since: float) -> RemoteBatch | None:
        """Return the batch that a file of requests is; None where it is not there."""
        return await asyncio.to_thread(self._read, file_id)

    async def read_batch(self, batch_id: str) -> RemoteBatch:
        """Return a batch as it is now.

        Raises:
            EndpointError: Somebody removed its file.
        """
        batch = await self.find_batch("", batch_id, 0.0)
        if batch is None:
            raise EndpointError(
                f"the requests {self._folder / batch_id} are not there any more",
                hint="put the file back, or give its requests up: `mvl batches --forget`",
            )
        return batch

    async def download_file(self, file_id: str, path: Path) -> None:
        """Copy a file to `path`.

        Raises:
            BatchApiError: It is not there.
        """
        try:
            await asyncio.to_thread(shutil.copyfile, self._folder / file_id, path)
        except OSError as error:
            raise BatchApiError(RequestFault("no_file", str(error), FaultScope.REQUEST)) from error

    def refuse(self, fault: RequestFault) -> NoReturn:
        """End the run because of a fault of the folder."""
        raise EndpointError(
            f"batches cannot be put into {self._folder}: {fault.message}",
            hint="correct base_urls of the model in the profile, or the rights of the folder, and run again",
        )

    def _get_answers(self, file_id: str) -> Path:
        return self._folder / ANSWERS_FOLDER / file_id

    def _read(self, file_id: str) -> RemoteBatch | None:
        requests, answers = self._folder / file_id, self._get_answers(file_id)
        try:
            created_at = requests.stat().st_mtime
            n_requests = self._count_lines(requests)
        except FileNotFoundError:
            return None
        try:
            n_answers, ended_at = self._count_lines(answers), answers.stat().st_mtime
        except FileNotFoundError:
            n_answers, ended_at = 0, None
        has_ended = n_answers >= n_requests
        return RemoteBatch(
            batch_id=file_id,
            status="completed" if has_ended else "waiting for vllm run-batch",
            file_id=file_id,
            name=None,
            created_at=created_at,
            ended_at=ended_at if has_ended else None,
            output_file_ids=(f"{ANSWERS_FOLDER}/{file_id}",) if has_ended else (),
            errors=(),
            n_requests=n_requests,
            n_completed=n_answers,
            n_failed=0,
        )

    def _count_lines(self, path: Path) -> int:
        """Return the number of whole lines of a file."""
        facts = path.stat()
        key = (path, facts.st_size, facts.st_mtime_ns)
        if key not in self._line_counts:
            with path.open("rb") as file:
                n_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(READ_BYTES), b""))
            self._line_counts = {k: n for k, n in self._line_counts.items() if k[0] != path and k[0].exists()}
            self._line_counts[key] = n_lines
        return self._line_counts[key]
