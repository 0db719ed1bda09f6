"""Hydra finds launchers only under `hydra_plugins`."""
