"""A data set repository on the hub, to be written: which files it has, and commits of others.

`huggingface_hub` sends the files: it asks the hub which of them it stores already, under any name and committed or not,
and sends the others. Here transient failures are waited out, and refusals become one line and a hint. The only token
used is the environment's `HF_TOKEN`; neither it nor the signed addresses of uploads appear in a log line or an error.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, logging

from mvl_assets.common.retry_after import parse_retry_after
from mvl_assets.publish.errors import PublishError

MAX_ATTEMPTS, BACKOFF_BASE_S = 5, 2.0
MAX_WAIT_S = 3900.0
"""Longest wait that the hub is granted: it limits commits by the hour."""

_RETRYABLE_STATUSES = frozenset({408, 409, 412, 429, 500, 502, 503, 504})
_REPO_TYPE = "dataset"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to publish: its name in the repository, where it is, and its bytes."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the repository: bytes, sha256 of a file in large-file storage, git's object id of a small one."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


class HubRepository:
    """One data set repository on the hub at `endpoint`.

    `on_wait` is told the seconds of each wait and the reason.
    """

    def __init__(self, name: str, endpoint: str, token: str, on_wait: Callable[[float, str], None]) -> None:
        self.name = name
        self.endpoint = endpoint
        self._api = HfApi(endpoint=endpoint, token=token)
        self._on_wait = on_wait
        # Its warnings name the signed addresses of uploads.
        logging.set_verbosity_error()
        disable_progress_bars()

    @property
    def url(self) -> str:
        return f"{self.endpoint}/datasets/{self.name}"

    def get_visibility(self) -> str | None:
        """Return `private` or `public`; None if there is no such repository, or none that the token may see."""

        def get_info() -> str | None:
            try:
                info = self._api.repo_info(self.name, repo_type=_REPO_TYPE)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:  # so the hub answers a token that it does not know
                    raise
                return None
            return "private" if info.private else "public"

        return self._call(get_info)

    def create(self, *, private: bool) -> None:
        """Create the repository, if it is not there."""
        self._call(lambda: self._api.create_repo(self.name, repo_type=_REPO_TYPE, private=private, exist_ok=True))

    def list_files(self) -> dict[str, HubFile]:
        """Return the files by name."""

        def list_tree() -> dict[str, HubFile]:
            try:
                entries = list(self._api.list_repo_tree(self.name, repo_type=_REPO_TYPE, recursive=True))
            except EntryNotFoundError:  # no commit yet
                return {}
            return {
                entry.path: HubFile(
                    entry.path,
                    entry.size,
                    entry.lfs.sha256 if entry.lfs else None,
                    None if entry.lfs else entry.blob_id,
                )
                for entry in entries
                if isinstance(entry, RepoFile)
            }

        return self._call(list_tree)

    def commit(
        self,
        message: str,
        list_additions: Callable[[], Sequence[LocalFile]],
        list_deletions: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """Send files and commit them.

        Args:
            message: Message of the commit.
            list_additions: Returns the files to add. Asked before every attempt: a commit whose answer was lost may
                have succeeded.
            list_deletions: Returns the names of files to delete.
        """

        def send() -> None:
            additions, deletions = list_additions(), list_deletions()
            if additions or deletions:
                operations: list[CommitOperationAdd | CommitOperationDelete] = [
                    *(CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.path) for file in additions),
                    *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in deletions),
                ]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # remarks on the card
                    self._api.create_commit(self.name, operations, commit_message=message, repo_type=_REPO_TYPE)

        self._call(send)

    def _call(self, call: Callable[[], T]) -> T:
        """Call the hub, again after a transient failure.

        Raises:
            PublishError: The hub refuses, or fails for too long.
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with self._translate_errors():
                    return call()
            except _TransientError as error:
                wait_s = BACKOFF_BASE_S * 2 ** (attempt - 1) if error.retry_after_s is None else error.retry_after_s
                if attempt == MAX_ATTEMPTS or wait_s > MAX_WAIT_S:
                    raise PublishError(
                        f"{self.endpoint} {error.problem}",
                        hint="run the same command again later: what has been sent is not sent again",
                    ) from None
                self._on_wait(wait_s, error.problem)
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OfflineModeIsEnabled:
            raise PublishError("HF_HUB_OFFLINE is set", hint="unset it to publish") from None
        except HFValidationError:
            raise PublishError(f"{self.name!r} is no name of a repository", hint="write OWNER/NAME") from None
        except (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
            # An upload's own error is the cause of a RuntimeError.
            cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
            if isinstance(cause, HfHubHTTPError):
                raise self._translate_answer(cause) from None
            if isinstance(cause, httpx2.HTTPError | ConnectionError):
                raise _TransientError(f"cannot be reached, or drops connections ({type(cause).__name__})") from None
            if isinstance(cause, OSError):
                raise
            if isinstance(cause, ValueError) and "metadata in README.md" in str(cause):
                raise PublishError(
                    f"the hub refuses the card's front matter: {cause}", hint="this is a fault of mvl, please report it"
                ) from None
            raise PublishError(
                f"{self.endpoint} does not answer as a hub does ({type(cause).__name__})",
                hint="check HF_ENDPOINT, and any proxy in between; for a hub without Xet set HF_HUB_DISABLE_XET=1",
            ) from None

    def _translate_answer(self, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        if status in _RETRYABLE_STATUSES:
            problem = "takes no more for now" if status == 429 else "fails"
            retry_after_s = parse_retry_after(error.response.headers.get("Retry-After"))
            return _TransientError(f"{problem} (HTTP {status})", retry_after_s)
        owner = self.name.partition("/")[0]
        token_hint = f"set HF_TOKEN to a token of {owner} with the right to write: {self.endpoint}/settings/tokens"
        refusals = {
            401: ("does not know the token in HF_TOKEN", token_hint),
            402: ("has no room left for private data", f"make room in {owner}'s account, or publish without --private"),
            403: (f"does not let this token write to {self.name}", token_hint),
            404: (f"has no {self.name} that this token may see", token_hint),
            413: ("refuses a file or commit as too large", "export smaller shards with --shard-mb"),
        }
        problem, hint = refusals.get(status, ("refuses", "run it with -v for the details"))
        return PublishError(f"{self.endpoint} {problem} (HTTP {status})", hint=hint)


class _TransientError(Exception):
    """A failure that may pass. `retry_after_s` is what the hub asks for."""

    def __init__(self, problem: str, retry_after_s: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.retry_after_s = retry_after_s
