"""Statistics: scores, intervals, paired tests, calibration, equation (1). Legend: N images, C classes."""
