"""Statistics: scores, intervals, tests, calibration, equation (1). Legend: N images, C classes."""
