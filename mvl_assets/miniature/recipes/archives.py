"""The sources whose pictures come in archives."""

from __future__ import annotations

from mvl_assets.miniature.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
