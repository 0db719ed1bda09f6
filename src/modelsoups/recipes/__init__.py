"""Recipes (the hyperparameters of one fine-tuning run each), and the searches that draw them."""
