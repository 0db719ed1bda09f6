"""Pre-trained models as classifiers, from open_clip, timm or this package."""
