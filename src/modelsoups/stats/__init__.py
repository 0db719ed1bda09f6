"""Statistics of predictions (N images, C classes): accuracy, tests, calibration, equation (1)."""
