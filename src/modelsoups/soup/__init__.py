"""The soup library, `from modelsoups import soup`; the pipeline's stage of that name is `modelsoups.soup.stage`."""

from modelsoups.soup.library import load, mix, mixed, uniform

__all__ = ["load", "mix", "mixed", "uniform"]
