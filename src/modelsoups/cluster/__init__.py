"""The pipeline on a SLURM cluster: the cost of a sweep, its submission and its progress."""
