"""An opened run: its recipes, prepared data sets, ingredients, logits and soups."""
