"""The miniature experiment: images of icons in place of ImageNet, and a small CLIP and ViT."""
