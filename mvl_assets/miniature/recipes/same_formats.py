"""The sources beyond the demo that are published in one of the demo's formats."""

from __future__ import annotations

from mvl_assets.miniature.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
