"""Merging models: recipes, streaming merges, and evolution of recipes."""
