"""Statistics: scores, intervals, paired tests, calibration, equation (1)."""
