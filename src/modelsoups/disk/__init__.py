"""Files on disk: the paths of a run, atomic writing, manifests, locks and provenance."""
