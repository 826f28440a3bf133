"""Dagster's instance and the code locations of `workspace.yaml`, as the commands need them."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

import dagster as dg
import yaml

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import PROJECT, settings
from mvl_assets.errors import MvlError
from mvl_assets.judging.keep import check_rule


def prepare_home() -> Path:
    """Makes DAGSTER_HOME with the laptop's `dagster.yaml` when there is none, and sets the variable for children.

    Reads the profile and the catalog first: a mistake in them is one line here, and a long story once Dagster meets it.
    """
    check_rule(load_profile(settings().profile))
    load_catalog()
    home = settings().dagster_home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        shutil.copyfile(PROJECT / "deploy" / "dagster.yaml", config)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("MVL_HOME", str(settings().home))
    return home


def instance() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME. One step at a time may train; `dagster.yaml` bounds the other pools."""
    prepare_home()
    made = dg.DagsterInstance.get()
    made.event_log_storage.set_concurrency_slots("gpu-train", 1)
    return made


def workspace_file() -> Path:
    for folder in (Path.cwd(), PROJECT):
        if (folder / "workspace.yaml").is_file():
            return folder / "workspace.yaml"
    raise MvlError("there is no workspace.yaml here", hint="run mvl from the project's folder")


def code_locations() -> dict[str, dg.Definitions]:
    """The definitions of every `python_module` entry, by location name, in the file's order."""
    listed = yaml.safe_load(workspace_file().read_text(encoding="utf-8"))["load_from"]
    found: dict[str, dg.Definitions] = {}
    for entry in listed:
        module = entry["python_module"]
        name = module["module_name"]
        made = importlib.import_module(name).defs
        found[module.get("location_name", name)] = made if isinstance(made, dg.Definitions) else made()
    return found


def quiet_dagster() -> None:
    """Dagster's own warnings about beta features are for this project's developers, not for its users."""
    if not sys.warnoptions:
        import warnings

        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
