"""Accuracy, intervals, significance tests, calibration, equation (1). N images, C classes."""
