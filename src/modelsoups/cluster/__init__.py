"""The pipeline on a SLURM cluster: what a sweep costs, submitting it, and how far it is."""
