"""Access to the files of one run: recipes, data sets, fine-tuned models, logits and soups."""
