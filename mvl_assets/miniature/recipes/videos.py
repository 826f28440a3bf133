"""The sources of videos that come in a format of their own."""

from __future__ import annotations

from mvl_assets.miniature.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
