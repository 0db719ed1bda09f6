"""The text miniature: sentences of a small grammar, and two tasks in the place of GLUE's."""
