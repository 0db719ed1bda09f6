"""Pre-trained models as classifiers: from open_clip, from timm, or built in."""
