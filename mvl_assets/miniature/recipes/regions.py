"""The sources that say what is where in a picture."""

from __future__ import annotations

from mvl_assets.miniature.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
