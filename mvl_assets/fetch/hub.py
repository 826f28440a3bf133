"""Lists dataset repositories of the Hugging Face hub (or of the mirror `HF_ENDPOINT`).

`huggingface_hub` talks to the hub; its errors become one line and a hint. The only token used is the environment's
`HF_TOKEN`; it never appears in a log line, file or error.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import PurePosixPath

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo

from mvl_assets.common.retry_after import MAX_RETRY_AFTER_S, parse_retry_after
from mvl_assets.fetch.errors import FetchRefused, HubUnavailable

TIMEOUT_S = 60.0
MAX_ATTEMPTS, BACKOFF_BASE_S = 4, 1.0
_RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository: size in bytes, sha256 of a file in large-file storage, git's object id of a small one."""

    path: str
    size: int | None
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A dataset repository at one commit. `gated` is None if everyone may read, `license` is the card's."""

    name: str
    commit: str
    license: str | None
    gated: str | None
    files: tuple[RepoFile, ...]


def get_endpoint() -> str:
    """Return the URL of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def build_file_url(repo: str, commit: str, path: str) -> str:
    """Return the URL of a file of the repository at that commit."""
    return hf_hub_url(repo, path, repo_type="dataset", revision=commit, endpoint=get_endpoint())


def build_auth_headers() -> dict[str, str]:
    """Return the header with the environment's token, if there is one."""
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def get_repository(repo: str) -> Repository:
    """Return the repository as it is now.

    Transient failures (HTTP 429, 5xx, a lost connection) are retried up to `MAX_ATTEMPTS` times, after `Retry-After` or
    an exponential backoff.

    Raises:
        FetchRefused: With the reason and what to do.
    """
    info = _fetch_dataset_info(repo)
    if info.sha is None:
        raise FetchRefused(f"{get_endpoint()} gives no commit of {repo}", hint="check that HF_ENDPOINT is a hub")
    files = [
        RepoFile(
            path=sibling.rfilename,
            size=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git_sha1=sibling.blob_id if sibling.lfs is None else None,
        )
        for sibling in info.siblings or []
        if is_safe_path(sibling.rfilename)
    ]
    card_license = info.card_data.get("license") if info.card_data else None
    return Repository(
        name=repo,
        commit=info.sha,
        license=", ".join(map(str, card_license)) if isinstance(card_license, list) else card_license,
        gated=str(info.gated) if info.gated else None,
        files=tuple(sorted(files, key=lambda f: f.path)),
    )


def is_safe_path(name: str) -> bool:
    """Return whether a file name of a repository stays below the folder it is written to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and "\\" not in name and "\0" not in name and ".." not in parts


def _fetch_dataset_info(repo: str) -> DatasetInfo:
    token = os.environ.get("HF_TOKEN")
    api = HfApi(endpoint=get_endpoint(), token=token or False)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return api.dataset_info(repo, files_metadata=True, timeout=TIMEOUT_S)
        except HfHubHTTPError as error:
            status = error.response.status_code
            retry_after_s = parse_retry_after(error.response.headers.get("Retry-After"))
            if status not in _RETRYABLE_STATUSES or attempt == MAX_ATTEMPTS or (retry_after_s or 0) > MAX_RETRY_AFTER_S:
                raise _build_refusal(repo, error, has_token=token is not None) from None
        except OfflineModeIsEnabled:
            raise FetchRefused("HF_HUB_OFFLINE is set", hint="unset it to ask the hub") from None
        except (httpx2.HTTPError, OSError) as error:
            retry_after_s = None
            if attempt == MAX_ATTEMPTS:
                raise HubUnavailable(
                    f"{get_endpoint()} cannot be reached ({type(error).__name__})",
                    hint="check the network, and HF_ENDPOINT if it is set",
                ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            # A proxy's login page or a service other than a hub.
            raise FetchRefused(
                f"{get_endpoint()} does not answer as a hub does", hint="check HF_ENDPOINT, and any proxy in between"
            ) from None
        time.sleep(
            BACKOFF_BASE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5) if retry_after_s is None else retry_after_s
        )
    raise AssertionError("unreachable")


def _build_refusal(repo: str, error: HfHubHTTPError, *, has_token: bool) -> FetchRefused:
    """Translate the hub's error into a reason and a hint."""
    status = error.response.status_code
    terms_hint = f"accept its terms at {get_endpoint()}/datasets/{repo} and set HF_TOKEN to a token of that account"
    problem, hint = "cannot be looked up", "run it again later"
    if isinstance(error, GatedRepoError):
        problem, hint = "is gated", terms_hint
    elif isinstance(error, DisabledRepoError):
        problem, hint = "was disabled", "name another copy in its catalog entry"
    elif status == 401 and not has_token:
        # Without a token the hub answers the same for private, gated and missing repositories.
        problem, hint = "is missing, private or gated", f"if it is gated, {terms_hint}"
    elif isinstance(error, RepositoryNotFoundError) or status == 404:
        problem, hint = "does not exist", "name another copy in its catalog entry"
    elif status in (401, 403):
        problem, hint = "is not accessible with this token", terms_hint
    elif status == 429:
        problem, hint = "was requested too often", "run it again later; a token in HF_TOKEN raises the limit"
    return FetchRefused(f"{repo} {problem} (HTTP {status})", hint=hint)
