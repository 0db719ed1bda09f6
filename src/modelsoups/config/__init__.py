"""The configuration: every key with its default, and the merging of overrides into a Config."""
