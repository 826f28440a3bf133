"""One variable reaches the store, and a store that cannot be used is one clear error without secrets."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import lance
import pyarrow as pa
import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.lake.durability.store_probe import require_conditional_writes
from mvl_assets.lake.errors import StoreError, translate_disk_errors
from mvl_assets.lake.storage import build_storage_options, check_store
from tests.object_store.server import ELSEWHERE, FORGETFUL, GUARDED, KEYS, StoreProcess, list_files


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
def test_one_variable_is_enough_for_both_clients(
    store: StoreProcess, root: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(variable, f"{store.endpoint}/")
    check_store(root)
    uri = f"{root}/a.lance"
    lance.write_dataset(pa.table({"a": [1]}), uri, storage_options=build_storage_options(uri))
    assert any(path.endswith(".manifest") for path in list_files(root))


def test_options_say_where_and_never_who(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = build_storage_options(root)
    assert options is not None and set(options) == {"aws_endpoint", "allow_http", "aws_region"}
    assert not set(KEYS.values()) & set(options.values())
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert (build_storage_options(root) or {})["aws_region"] == "eu-north-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example")
    assert (build_storage_options(root) or {})["allow_http"] == "false"
    for variable in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(variable)
    assert build_storage_options(root) is None is build_storage_options("/a/folder")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ENDPOINT": "http://other:9000"}, "are different endpoints"),
        ({"AWS_ENDPOINT_URL": "store:9000"}, "AWS_ENDPOINT_URL=store:9000 lacks its scheme"),
    ],
)
def test_an_endpoint_that_means_nothing_is_refused(
    root: str, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    for ask in (build_storage_options, check_store):
        with pytest.raises(MvlError, match=message):
            ask(root)


def open_with_arrow(uri: str) -> object:
    return check_store(uri)


def open_with_lance(uri: str) -> object:
    options = {**(build_storage_options(uri) or {}), "client_max_retries": "1"}
    with translate_disk_errors(uri):
        return lance.dataset(f"{uri}/a.lance", storage_options=options)


def refuse(ask: Callable[[str], object], uri: str) -> StoreError:
    with pytest.raises(StoreError) as refused:
        ask(uri)
    error = refused.value
    assert isinstance(error, InfrastructureError) and error.hint is not None and uri in error.message
    shown = "".join(traceback.format_exception(error))
    assert not any(value in shown for value in KEYS.values())
    return error


CLIENTS = pytest.mark.parametrize("ask", [open_with_arrow, open_with_lance])


@CLIENTS
def test_wrong_credentials_are_named(root: str, ask: Callable[[str], object]) -> None:
    error = refuse(ask, f"s3://{GUARDED}/lake")
    assert "does not accept the credentials" in error.message and "AWS_ACCESS_KEY_ID" in (error.hint or "")


@CLIENTS
def test_a_missing_bucket_is_named(root: str, ask: Callable[[str], object]) -> None:
    error = refuse(ask, "s3://no-such-bucket/lake")
    assert "does not exist" in error.message and "MVL_LAKE" in (error.hint or "")


@CLIENTS
def test_a_wrong_region_is_named(root: str, ask: Callable[[str], object]) -> None:
    error = refuse(ask, f"s3://{ELSEWHERE}/lake")
    assert "another region" in error.message and "AWS_REGION" in (error.hint or "")


@CLIENTS
def test_an_endpoint_where_nothing_answers_is_named(
    root: str, ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{find_free_port()}")
    error = refuse(ask, root)
    assert "cannot be reached" in error.message and "AWS_ENDPOINT_URL" in (error.hint or "")


def test_the_probe_leaves_nothing_behind(root: str) -> None:
    require_conditional_writes(root)
    assert list_files(root) == []


def test_a_store_that_loses_commits_is_refused(root: str) -> None:
    uri = f"s3://{FORGETFUL}/lake"
    error = refuse(require_conditional_writes, uri)
    assert "lost" in error.message and "conditional writes" in (error.hint or "")
    assert list_files(uri) == []
