"""Recipes: a model is described in TOML, not coded."""

from tailbind.recipes.schema import Recipe, load_recipe, recipe_names, stated_recipe

__all__ = ["Recipe", "load_recipe", "recipe_names", "stated_recipe"]
