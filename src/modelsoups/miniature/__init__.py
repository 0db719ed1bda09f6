"""The miniature experiment's data and models: icons, rendering, data sets, pre-training."""
