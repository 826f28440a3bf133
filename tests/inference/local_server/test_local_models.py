"""Models that ship with the package: found by name, and refused if their weights are not those that were shipped."""

import hashlib
import json
from pathlib import Path

import pytest

from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server import local_models
from mvl_assets.inference.local_server.local_models import is_packaged, list_shipped_models, prepare_model


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_models, "SHIPPED_MODELS_DIR", tmp_path)
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "origin.json").write_text(json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest()}))
    return folder


def test_a_shipped_model_is_used_where_it_lies(shipped: Path):
    assert list_shipped_models() == ["tiny"] and is_packaged("tiny")
    assert prepare_model("tiny") == shipped


def test_damaged_weights_are_refused(shipped: Path):
    (shipped / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(MvlError, match="not the file that was shipped"):
        prepare_model("tiny")


def test_an_unknown_name_lists_what_there_is(shipped: Path):
    with pytest.raises(MvlError) as caught:
        prepare_model("huge")
    assert "tiny" in str(caught.value.hint)
