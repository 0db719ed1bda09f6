"""The configuration: the definition of every key, and the merging of overrides into a Config."""
