"""The miniature's data and models: icons, their rendering, its sets, pre-training."""
