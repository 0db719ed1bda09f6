"""The report of an experiment: numbers, claims, tables, figures and one HTML page."""
