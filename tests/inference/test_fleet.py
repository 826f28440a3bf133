"""Lists of endpoints that may change: what a file and a DNS name give, and what they may not."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.endpoints import estimate_endpoint_count, resolve_endpoints
from mvl_assets.inference.fleet import DnsFleet, FileFleet, Fleet, FleetError, read_base_urls

URLS = ["http://a:1/v1", "https://b/v1"]


@pytest.mark.parametrize(
    "text",
    [
        "http://a:1/v1\nhttps://b/v1\n",
        "# rank 0\nhttp://a:1/v1/  # the first\r\n\n  https://b/v1\nhttp://a:1/v1",
        '["http://a:1/v1", "https://b/v1"]',
        '[\n  "http://a:1/v1",\n  "https://b/v1"\n]\n',
        "- http://a:1/v1\n- https://b/v1\n",
        "# a fleet\n---\n- http://a:1/v1\n- https://b/v1  # new\n",
        "\ufeffhttp://a:1/v1\nhttps://b/v1",
    ],
)
def test_a_file_holds_urls_per_line_or_as_a_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "endpoints"
    path.write_text(text, encoding="utf-8")
    assert read_base_urls(path) == URLS


def test_an_empty_list_is_a_list_and_an_empty_file_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "endpoints"
    path.write_text("[]\n", encoding="utf-8")
    assert read_base_urls(path) == []
    for text in ("", "\n# none\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FleetError, match="lists no endpoint"):
            read_base_urls(path)


@pytest.mark.parametrize(
    "content",
    [
        b"http://a:1/v1\nuser:hunter2@b",
        b"http://user:hunter2@a:port/v1",
        b"ftp://user:hunter2@a/v1",
        b"http://user:hunter2@a..b/v1",
        b"http://user:hunter2@a/v1 http://b/v1",
        b'["http://user:hunter2@a/v1"',
        b'["http://user:hunter2@a/v1", 5]',
        b"- {url: 'http://user:hunter2@a/v1'}",
        b"[" * 1000 + b"hunter2",
        b"http://hunter2\xff\xfe/v1",
        b"http://a/hunter2\n" * 70_000,
    ],
    ids=range(11),
)
def test_a_broken_file_is_refused_whole_without_repeating_a_secret(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "endpoints"
    path.write_bytes(content)
    with pytest.raises(FleetError) as caught:
        read_base_urls(path)
    assert str(path) in caught.value.message and "hunter2" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="endpoints cannot be read"):
        read_base_urls(tmp_path / "endpoints")


def test_each_address_of_a_name_is_an_endpoint_that_keeps_the_name() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("vllm", 8000)
        return ["10.0.0.2", "fd00::1", "10.0.0.2"]

    fleet = DnsFleet(Endpoint("http://user:hunter2@vllm:8000/v1", "m"), resolve=resolve)
    first, second = asyncio.run(fleet.list_endpoints())
    assert first.chat_url == "http://user:hunter2@10.0.0.2:8000/v1/chat/completions"
    assert second.health_url == "http://user:hunter2@[fd00::1]:8000/health"
    assert first.build_headers()["Host"] == "vllm:8000"
    assert first.server_hostname == "vllm"
    assert first.redacted_url == "http://vllm:8000/v1 at 10.0.0.2"
    assert first.key != second.key
    assert "hunter2" not in fleet.name


def test_a_name_without_an_address_cannot_be_listed() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(FleetError, match="vllm cannot be resolved: Name or service not known"):
        asyncio.run(DnsFleet(Endpoint("https://vllm/v1", "m"), resolve=resolve).list_endpoints())
    addresses = asyncio.run(DnsFleet(Endpoint("http://localhost:1/v1", "m")).list_endpoints())
    assert "127.0.0.1" in [endpoint.address for endpoint in addresses]


def build_model(**fields: object) -> ModelProfile:
    return ModelProfile.model_validate({"name": "m", "revision": "1", "supports_images": False, **fields})


def test_a_profile_gives_a_fleet_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "endpoints"
    path.write_text("http://a:1/v1\nhttp://b:1/v1\n", encoding="utf-8")
    model = build_model(endpoints_file=str(path), api_key_env="MVL_TEST_KEY", headers={"X-Team": "t"}, concurrency=5)
    fleet = resolve_endpoints(model)
    assert isinstance(fleet, FileFleet) and fleet.name == str(path)
    first, second = asyncio.run(fleet.list_endpoints())
    assert (first.base_url, second.base_url) == ("http://a:1/v1", "http://b:1/v1")
    assert (first.model, first.api_key_env, first.max_concurrency, first.headers) == (
        "m",
        "MVL_TEST_KEY",
        5,
        {"X-Team": "t"},
    )
    assert estimate_endpoint_count(model) == 2
    path.unlink()
    assert estimate_endpoint_count(model) == 1

    fleet = resolve_endpoints(build_model(dns="http://vllm:8000/v1"))
    assert isinstance(fleet, DnsFleet)
    assert isinstance(pickle.loads(pickle.dumps(fleet)), Fleet), "workers on other machines get it"


def test_a_model_has_exactly_one_kind_of_endpoints() -> None:
    for fields in ({}, {"base_urls": ["http://a/v1"], "dns": "http://b/v1"}):
        with pytest.raises(ValidationError, match="give one of base_urls, endpoints_file, dns and serve"):
            build_model(**fields)
    with pytest.raises(MvlError, match="is not a URL"):
        resolve_endpoints(build_model(dns="vllm:8000"))
