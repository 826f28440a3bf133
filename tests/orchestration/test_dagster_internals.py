"""Dagster's private API: used in one module, and looked at again when Dagster's version changes."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

import mvl_assets
import mvl_training
from mvl_assets.orchestration.dagster_internals import StaleStatusResolver, resolve_asset_selection

CHECKED_VERSION = "1.13.27"


def test_dagster_is_the_version_whose_private_api_was_checked() -> None:
    """To do when Dagster is upgraded, before changing `CHECKED_VERSION`:

    - `CachingStaleStatusResolver._is_dep_updated` still decides one dependency, with the same arguments, and
      `instance_queryer.get_asset_record` and `provenance.input_storage_ids` still mean what they did. The tests of
      staleness (`tests/defs/test_staleness.py`) must pass, and `mvl status` must stay as fast as it was.
    - `LoadingContextForTest` still is a loading context without a request; perhaps there is a public one by now.
    - `AssetRecord.blocking_get_many` still fills the loader that the resolver asks.
    - `DagsterInvalidAssetSelectionError` still is what `AssetSelection.from_string` raises.
    - `AssetGraph` may have become public.
    """
    assert version("dagster") == CHECKED_VERSION


def test_the_overridden_method_exists_in_dagster() -> None:
    assert callable(getattr(StaleStatusResolver.__mro__[1], "_is_dep_updated", None))


def test_no_other_module_imports_private_dagster_modules() -> None:
    folders = [Path(package.__file__ or "").parent for package in (mvl_assets, mvl_training)]
    importing = {
        path.name
        for folder in folders
        for path in folder.rglob("*.py")
        if re.search(r"^\s*(from|import) dagster\._", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importing == {"dagster_internals.py"}


def test_a_selection_that_cannot_be_read_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        resolve_asset_selection("key:(", [])
