"""The pipeline stages, a module each; its function run(experiment) returns whether it did work."""
