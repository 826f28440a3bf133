"""Recipes of all demo data, by source slug."""

from __future__ import annotations

from types import MappingProxyType

from mvl_assets.demo_data.recipes import archives, demo, questions, regions, same_formats, videos, web
from mvl_assets.demo_data.recipes.recipe import DemoRecipe

_RECIPE_MODULES = (demo, same_formats, questions, regions, web, videos, archives)
RECIPES: MappingProxyType[str, DemoRecipe] = MappingProxyType(
    {recipe.slug: recipe for module in _RECIPE_MODULES for recipe in module.RECIPES}
)
DEMO_SLUGS = tuple(recipe.slug for recipe in demo.RECIPES)
