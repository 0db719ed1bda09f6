"""Classifiers made from pre-trained encoders of open_clip, of timm or of this package."""
