"""Locations and switches from the environment, read on every call so that tests and runs can differ in one process.

| variable | meaning | default |
|---|---|---|
| MVL_PROJECT | the project's folder | the nearest one, upwards, with a `mvl.yaml` |
| MVL_HOME | everything the pipeline writes on this machine | `.mvl` of the project |
| MVL_LAKE | root of the Lance tables, a path or an object-store URI; an arm: `common.arm_address` | `$MVL_HOME/lake` |
| MVL_RAW | files of the sources, one folder each | `$MVL_HOME/raw` |
| MVL_UNPACKED | indexes and plain copies of archives, a folder per source | `.unpacked` in the source's folder |
| MVL_SCRATCH | temporary files of any size | `$MVL_HOME/scratch` |
| MVL_EXPORT | exports, a path or an object-store URI | `$MVL_HOME/export` |
| MVL_CHECKPOINTS | checkpoints; where several machines train, a folder that all of them see | `$MVL_HOME/checkpoints` |
| MVL_PROFILE | name of a profile, or a path to a YAML file | `profile` in `mvl.yaml` |
| MVL_PROMPTS | folder of own prompt files, which lie over the package's | `prompts/` of the project |
| MVL_ALLOW_PRIVATE_FETCH | `1`: files may also be fetched from the local network | public addresses only |
| MVL_SOURCES_LOCK | the lock file of the sources (`mvl sources lock`) | `$MVL_HOME/sources.lock.json` |

Only the lake and the exports may be in an object store. Raw files are locked, mapped into memory and read at random,
checkpoints are written by several ranks at once: those places are folders, local or mounted.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mvl_assets.common.arm_address import ArmId, split_lake_address
from mvl_assets.common.scratch_location import resolve_home, resolve_local_dir, resolve_scratch_dir
from mvl_assets.config.project import find_own_dir, load_project
from mvl_assets.errors import MvlError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""The clone that this code is in; of an installed package, the folder that it was installed to."""

STORE_SCHEMES = ("file", "s3", "gs", "abfss")
"""Object stores that both Lance and Arrow's file systems reach."""

UNPACKED_DIR = ".unpacked"
"""Folder inside a source's folder for unpacked archives and their indexes, unless `MVL_UNPACKED` says otherwise."""


@dataclass(frozen=True)
class Settings:
    """Resolved locations. Writers create the folders they need.

    Attributes:
        raw_dir: One folder per source slug, in the source's native format.
        prompts_dir: Own prompt files, which lie over those of the package; None without a project.
    """

    home: Path
    lake_root: str
    raw_dir: Path
    scratch_dir: Path
    export_root: str
    checkpoints_dir: Path
    profile: str
    prompts_dir: Path | None
    lock_file: Path

    @property
    def arm_id(self) -> ArmId | None:
        """The arm of a study that the lake's address names."""
        return split_lake_address(self.lake_root)[1]

    @property
    def studies_dir(self) -> Path:
        """Studies that were started: their records, and the profile and recipe of each arm."""
        return self.home / "studies"

    @property
    def publish_dir(self) -> Path:
        """Return the folder with one for each repository on the hub, and what is published there."""
        return self.home / "publish"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def servers_dir(self) -> Path:
        """Lock files, flags and logs of local model servers."""
        return self.home / "servers"

    @property
    def dagster_home(self) -> Path:
        return Path(os.environ.get("DAGSTER_HOME", self.home / "dagster"))


def validate_settings() -> None:
    """Raise `MvlError` for a home that cannot be a folder, and for a lake or exports in an unsupported place."""
    current_settings = load_settings()
    nearest_existing = next(
        (path for path in (current_settings.home, *current_settings.home.parents) if path.exists()),
        current_settings.home,
    )
    if not nearest_existing.is_dir():
        raise MvlError(
            f"MVL_HOME={current_settings.home}: {nearest_existing} is not a folder", hint="set MVL_HOME to a folder"
        )
    for variable, uri in (("MVL_LAKE", current_settings.lake_root), ("MVL_EXPORT", current_settings.export_root)):
        validate_location(variable, uri)


def validate_location(name: str, uri: str) -> None:
    """Raise `MvlError` for a place that is neither a path nor in a supported store, or whose address holds a secret.

    Args:
        name: The variable or option that says the place.
        uri: The place.
    """
    scheme, separator, location = uri.partition("://")
    if scheme != "abfss" and "@" in location.split("/")[0]:  # not shown: it would be in the message
        raise MvlError(
            f"{name} holds credentials",
            hint="leave them out of the address: set AWS_ACCESS_KEY_ID and its secret",
        )
    if separator and scheme not in STORE_SCHEMES:
        allowed_schemes = ", ".join(f"{scheme_name}://" for scheme_name in STORE_SCHEMES)
        raise MvlError(
            f"{name}={uri}: unsupported kind of location",
            hint=f"set {name} to a path or to one of {allowed_schemes}",
        )


def resolve_unpacked_dir(root: Path) -> Path:
    """Return the folder for unpacked archives of the source in `root`, and for their indexes.

    It can be removed at any time, and has to be on a disk of this machine: indexes are locked and mapped into memory.

    Raises:
        MvlError: `MVL_UNPACKED` is in an object store.
    """
    if not os.environ.get("MVL_UNPACKED"):
        return root / UNPACKED_DIR
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return resolve_local_dir("MVL_UNPACKED", root) / f"{root.name}-{digest}"


def resolve_raw_dir() -> Path:
    """Return the folder of the sources' folders. Raises `MvlError` where it is in an object store."""
    return resolve_local_dir("MVL_RAW", resolve_home() / "raw")


def load_settings() -> Settings:
    """Return the settings of the environment.

    Raises:
        MvlError: A place that has to be a folder is in an object store, or `mvl.yaml` has a mistake.
    """
    home = resolve_home()
    return Settings(
        home=home,
        lake_root=os.environ.get("MVL_LAKE", str(home / "lake")),
        raw_dir=resolve_raw_dir(),
        scratch_dir=resolve_scratch_dir(),
        export_root=os.environ.get("MVL_EXPORT") or str(home / "export"),
        checkpoints_dir=resolve_local_dir("MVL_CHECKPOINTS", home / "checkpoints"),
        profile=os.environ.get("MVL_PROFILE") or load_project().profile,
        prompts_dir=Path(own_prompts) if (own_prompts := os.environ.get("MVL_PROMPTS")) else find_own_dir("prompts"),
        lock_file=Path(os.environ.get("MVL_SOURCES_LOCK", home / "sources.lock.json")),
    )
