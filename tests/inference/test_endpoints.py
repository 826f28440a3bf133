"""From a profile's model to endpoints, and to the command of a local server."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import EndpointError
from mvl_assets.inference.endpoints import resolve_endpoints
from mvl_assets.inference.local_server import server_spec
from mvl_assets.inference.local_server.local_models import prepare_model
from mvl_assets.inference.local_server.server_spec import ServerSpec


def model(**fields: object) -> ModelProfile:
    return ModelProfile.model_validate({"name": "m", "revision": "1", "supports_images": False, **fields})


def test_every_base_url_is_an_endpoint_with_the_profiles_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["http://a:1/v1", "https://b/v1/"]
    one, two = resolve_endpoints(
        model(base_urls=urls, api_key_env="MVL_TEST_KEY", headers={"X-Team": "t"}, concurrency=5, max_image_side=448)
    )
    assert (one.chat_url, two.chat_url) == ("http://a:1/v1/chat/completions", "https://b/v1/chat/completions")
    assert two.health_url == "https://b/health"
    assert (one.max_concurrency, one.start_concurrency, one.max_image_side) == (5, 5, 448)
    monkeypatch.setenv("MVL_TEST_KEY", "secret")
    assert one.build_headers()["Authorization"] == "Bearer secret"
    assert one.build_headers()["X-Team"] == "t"
    assert "secret" not in repr(one)
    monkeypatch.delenv("MVL_TEST_KEY")
    with pytest.raises(EndpointError, match="MVL_TEST_KEY"):
        one.build_headers()


def test_a_local_server_gets_the_flags_that_the_engine_relies_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_spec, "runs_on_cpu", lambda: True)
    monkeypatch.setattr(server_spec, "is_vllm_installed", lambda: True)
    spec = ServerSpec.from_profile(model(serve={"model": str(tmp_path), "max_num_seqs": 4, "args": ["--seed", "1"]}))
    command = spec.prepare_command()
    flags = dict(itertools.pairwise(command))
    assert flags["--host"] == "127.0.0.1"
    assert flags["--served-model-name"] == "m"
    assert flags["--max-num-seqs"] == "4" and flags["--max-num-queued-reqs"] == "32"
    assert json.loads(flags["--structured-outputs-config"])["disable_any_whitespace"] is True
    assert "--enforce-eager" in command and command[-2:] == ["--seed", "1"]
    environment = spec.build_environment()
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_checkpoint_that_is_exported_again_gets_another_server(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = ServerSpec(str(tmp_path), "m").name
    assert ServerSpec(str(tmp_path), "m").name == before

    os.utime(tmp_path / "config.json", ns=(1, 1))
    assert ServerSpec(str(tmp_path), "m").name != before


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_spec, "is_vllm_installed", lambda: False)
    with pytest.raises(MvlError, match="vLLM is not installed") as caught:
        ServerSpec("smollm2-135m-instruct", "m").prepare_command()
    assert "base_urls" in str(caught.value.hint)


def test_an_unknown_packaged_model_and_a_missing_package_are_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    with pytest.raises(MvlError, match="no packaged model is called 'nothing'"):
        prepare_model("nothing")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MvlError, match="is not installed") as caught:
        prepare_model("smollm2-135m-instruct")
    assert "pip install" in str(caught.value.hint)
    assert list((tmp_path / "models").glob("smollm2*")) == []
