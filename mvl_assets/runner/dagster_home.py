"""Dagster's instance and the code locations of `workspace.yaml`, as the commands need them."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

import dagster as dg
import yaml

from mvl_assets.common.project_root import find_project_root
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import load_profile
from mvl_assets.config.project import PACKAGE_DIR
from mvl_assets.config.settings import load_settings
from mvl_assets.judging.keep import validate_keep_rule

START_RUN_TIMEOUT_S = 600


def validate_configuration() -> None:
    """Read profile and catalog: a mistake in them is reported in one line here, but as a long traceback by Dagster."""
    validate_keep_rule(load_profile(load_settings().profile))
    load_catalog()


def prepare_home() -> Path:
    """Create DAGSTER_HOME with the local `dagster.yaml` if it has none, set the variable for children, and return it.

    Raises `MvlError` as `validate_configuration` does.
    """
    validate_configuration()
    home = load_settings().dagster_home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    config_path = home / "dagster.yaml"
    if not config_path.exists():
        shutil.copyfile(PACKAGE_DIR / "deploy" / "dagster.yaml", config_path)
    os.environ["DAGSTER_HOME"] = str(home)
    if (project_root := find_project_root()) is not None:
        os.environ["MVL_PROJECT"] = str(project_root)
    os.environ.setdefault("MVL_HOME", str(load_settings().home))
    # Starting a run imports everything, which takes a busy machine longer than Dagster's minute: the daemon would then
    # call the run failed, whose process starts all the same.
    os.environ.setdefault("DAGSTER_GRPC_TIMEOUT_SECONDS", str(START_RUN_TIMEOUT_S))
    return home


def get_instance(*, read_only: bool = False) -> dg.DagsterInstance:
    """Return the instance of DAGSTER_HOME. One step at a time may train; `dagster.yaml` bounds the other pools.

    Args:
        read_only: Make no DAGSTER_HOME where there is none, and return an empty instance in memory instead.
    """
    validate_configuration()
    if read_only and not (load_settings().dagster_home / "dagster.yaml").is_file():
        return dg.DagsterInstance.ephemeral()
    prepare_home()
    dagster_instance = dg.DagsterInstance.get()
    dagster_instance.event_log_storage.set_concurrency_slots("gpu-train", 1)
    return dagster_instance


def find_workspace_file() -> Path:
    """Return the `workspace.yaml` of the project, or else the one that every new project gets."""
    folders = (find_project_root(), PACKAGE_DIR / "project_template")
    return next(path for folder in folders if folder is not None and (path := folder / "workspace.yaml").is_file())


def load_code_locations() -> dict[str, dg.Definitions]:
    """Return the definitions of every `python_module` entry, by location name, in the file's order."""
    entries = yaml.safe_load(find_workspace_file().read_text(encoding="utf-8"))["load_from"]
    locations: dict[str, dg.Definitions] = {}
    for entry in entries:
        module = entry["python_module"]
        name = module["module_name"]
        definitions = importlib.import_module(name).defs
        locations[module.get("location_name", name)] = (
            definitions if isinstance(definitions, dg.Definitions) else definitions()
        )
    return locations


def suppress_dagster_warnings() -> None:
    """Hide Dagster's warnings about beta features, which are for this project's developers, not for its users."""
    if not sys.warnoptions:
        import warnings

        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
