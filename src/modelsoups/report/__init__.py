"""The report of an experiment: numbers, Table 3, figures, claims and one HTML page."""
