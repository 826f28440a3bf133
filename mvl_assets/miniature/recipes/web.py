"""The sources from the web: pages, chats, tables, screenshots."""

from __future__ import annotations

from mvl_assets.miniature.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
