"""The configuration: the definition of every key, and the composition of overrides into a Config."""
