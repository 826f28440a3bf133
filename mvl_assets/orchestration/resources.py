"""The Dagster resource that assets get: the lake."""

from __future__ import annotations

import dagster as dg
from pydantic import PrivateAttr

from mvl_assets.common.arm_address import split_lake_address
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import check_store


class LakeResource(dg.ConfigurableResource):
    """The lake at `root`, a path or an object-store URI; None means `load_settings().lake_root` when the run starts."""

    root: str | None = None
    _lake: Lake | None = PrivateAttr(default=None)

    @property
    def lake(self) -> Lake:
        """The lake, opened once per run so that all its steps share one index per table."""
        if self._lake is None:
            root = self.root or load_settings().lake_root
            check_store(split_lake_address(root)[0])
            self._lake = Lake(root)
        return self._lake
