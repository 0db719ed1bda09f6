"""Statistics: scores, intervals, paired tests, calibration, equation (1). N images, C classes."""
