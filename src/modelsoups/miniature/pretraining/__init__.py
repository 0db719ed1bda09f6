"""Pre-training of IconCLIP and IconViT, the models of the miniature experiment."""
