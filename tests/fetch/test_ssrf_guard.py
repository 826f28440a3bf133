from __future__ import annotations

import socket

import pytest
from yarl import URL

from mvl_assets.fetch.connection import parse_web_url
from mvl_assets.fetch.errors import AddressNotAllowed, FetchError, FetchRefused
from mvl_assets.fetch.source import fetch_source
from mvl_assets.fetch.ssrf_guard import ALLOW_PRIVATE_ENV, create_public_socket, get_proxy, is_public_address
from tests.fetch.hub_server import Fault, HubServer
from tests.fetch.sources import QUICK, spec

PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
    *("::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_address_of_the_local_network_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_PRIVATE_ENV, raising=False)
    assert not is_public_address(address)
    with pytest.raises(AddressNotAllowed, match="public internet"):
        create_public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_address_is_allowed(address: str) -> None:
    assert is_public_address(address)
    create_public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1"])
def test_loopback_url_is_refused_in_every_spelling(hub: HubServer, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.delenv(ALLOW_PRIVATE_ENV)
    hub.plain["rows.json"] = b"[]"
    with pytest.raises(FetchError, match="not an address of the public internet") as caught:
        fetch_source(spec(repo=None, url=f"http://{host}:{hub.port}/plain/rows.json"), retry_policy=QUICK)
    assert ALLOW_PRIVATE_ENV in (caught.value.hint or "")
    assert hub.asked == []


def test_redirect_into_the_local_network_is_refused(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host is taken for a public one; the one it redirects to is not."""
    monkeypatch.delenv(ALLOW_PRIVATE_ENV)
    monkeypatch.setattr("mvl_assets.fetch.ssrf_guard.is_public_address", lambda host: host == "127.0.0.1")
    hub.plain["rows.json"] = b"[]"
    hub.faults["rows.json"] = Fault(redirect=f"http://127.0.0.2:{hub.port}/plain/rows.json")
    with pytest.raises(FetchError, match=r"127\.0\.0\.2 is not an address of the public internet"):
        fetch_source(spec(repo=None, url=f"{hub.url}/plain/rows.json"), retry_policy=QUICK)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/x", "gopher://example.org", "http://[bad"])
def test_redirect_to_another_scheme_is_refused(hub: HubServer, target: str) -> None:
    hub.faults["rows.json"] = Fault(redirect=target)
    with pytest.raises(FetchError, match="redirects to"):
        fetch_source(spec(repo=None, url=f"{hub.url}/plain/rows.json"), retry_policy=QUICK)


def test_endless_redirects_are_refused(hub: HubServer) -> None:
    hub.faults["rows.json"] = Fault(times=100, redirect="/plain/rows.json")
    with pytest.raises(FetchError, match="more than 5 times"):
        fetch_source(spec(repo=None, url=f"{hub.url}/plain/rows.json"), retry_policy=QUICK)
    assert len(hub.asked) == 6


def test_url_without_a_valid_host_is_refused(hub: HubServer) -> None:
    with pytest.raises(FetchError, match="is not a URL"):
        fetch_source(spec(repo=None, url=f"http://2130706433:{hub.port}/plain/rows.json"), retry_policy=QUICK)


@pytest.mark.parametrize("url", ["ftp://a.b/c", "/etc/passwd", "http:///x", "https://user:word@a.b/c", "javascript:1"])
def test_only_http_urls_without_user_names_are_requested(url: str) -> None:
    with pytest.raises(FetchRefused) as caught:
        parse_web_url(url)
    assert "word" not in str(caught.value)


def test_proxy_of_the_environment_is_used_except_for_its_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "example.org")
    assert get_proxy(URL("https://huggingface.co/x")) == "http://proxy.example:3128"
    assert get_proxy(URL("https://example.org/x")) is None
    monkeypatch.delenv("https_proxy")
    assert get_proxy(URL("https://huggingface.co/x")) is None
