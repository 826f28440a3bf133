"""Arms of studies in the address of a lake: `<root>#arm=<study>/<arm>/<seed>`.

An arm has mixtures, pack plans, packed rows and evaluations of its own and shares everything else. Because the address
says which arm is meant, every function and every launched process that opens a lake works on arms as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mvl_assets.errors import MvlError

_SEPARATOR = "#arm="
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, order=True)
class ArmId:
    """One arm of a study, trained with one seed."""

    study: str
    arm: str
    seed: int

    @property
    def path(self) -> str:
        """The arm as a relative path: `<study>/<arm>/<seed>`."""
        return f"{self.study}/{self.arm}/{self.seed}"


def is_arm_name(name: str) -> bool:
    """Return whether a study or an arm may have this name: it becomes a folder, and a part of an address."""
    return _NAME.fullmatch(name) is not None


def parse_arm_id(path: str) -> ArmId:
    """Return the arm that a path names.

    Raises:
        MvlError: It names none.
    """
    study, _, rest = path.partition("/")
    arm, _, seed = rest.partition("/")
    if not (is_arm_name(study) and is_arm_name(arm) and seed.isdecimal()):
        raise MvlError(f"{path!r} names no arm of a study", hint="write STUDY/ARM/SEED, such as mix/70/0")
    return ArmId(study, arm, int(seed))


def split_lake_address(address: str) -> tuple[str, ArmId | None]:
    """Return the root of a lake, and the arm that its address names.

    Raises:
        MvlError: What follows `#arm=` names no arm.
    """
    root, separator, path = address.partition(_SEPARATOR)
    return root.rstrip("/"), parse_arm_id(path) if separator else None


def format_lake_address(root: str, arm_id: ArmId | None) -> str:
    """Return the address of a lake, or of an arm in it."""
    return root if arm_id is None else f"{root}{_SEPARATOR}{arm_id.path}"
