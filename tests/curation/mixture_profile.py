"""A profile with a small mixture of three categories."""

from __future__ import annotations

from typing import Any

from mvl_assets.config.profile import Profile, load_profile


def profile(**changed: Any) -> Profile:
    """The demo's profile with the given fields of its mixture (or `holdout_fraction`, `paper_parity`) changed."""
    base = load_profile("demo")
    own = {k: changed.pop(k) for k in ("holdout_fraction", "paper_parity") if k in changed}
    whole = base.model_dump() | {"holdout_fraction": 0.0} | own
    small = {"alignment": 10, "single_image": 20, "one_vision": 10, "one_vision_single_share": 0.6, "seed": 0}
    shares = {"ocr": 0.5, "chart": 0.25, "video": 0.25}
    whole["mixture"] = whole["mixture"] | {"shares": shares, "upsample": False} | small | changed
    return Profile.model_validate(whole)
