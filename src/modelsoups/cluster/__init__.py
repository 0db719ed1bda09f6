"""The pipeline on a SLURM cluster: a sweep's cost estimate, job submission and progress."""
