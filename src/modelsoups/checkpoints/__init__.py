"""Open checkpoints of all common formats, and compare their tensor names, shapes and dtypes."""
