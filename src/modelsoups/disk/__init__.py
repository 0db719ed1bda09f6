"""Reads and writes files: paths, atomic writes, manifests, locks and records of provenance."""
