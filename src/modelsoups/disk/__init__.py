"""Files: every path of a run, atomic writing, manifests, locks, provenance."""
