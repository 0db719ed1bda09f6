"""The pipeline stages: one module each, with a function run(experiment) -> whether it did work."""
