"""An opened run: its draw, prepared sets, ingredients, logits and soups."""
