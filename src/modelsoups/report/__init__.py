"""What a report shows: statistics, tables, figures, claims and one HTML page, each a pure function of Evidence."""
