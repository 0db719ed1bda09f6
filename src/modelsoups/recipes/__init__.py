"""Recipes, and the searches that draw them."""
