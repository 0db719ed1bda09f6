"""Names, writes and locks the files of an experiment, and records how they were made."""
