"""Statistics of predictions (N images, C classes): accuracy, tests, calibration, the paper's loss estimate."""
