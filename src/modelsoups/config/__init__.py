"""The configuration: every key once, and how overrides become a Config."""
