"""The Hydra launcher of parallel jobs. Hydra looks for launchers only in `hydra_plugins`."""
