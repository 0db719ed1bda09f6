"""The stages of the pipeline: each is a module with a function run(experiment)."""
