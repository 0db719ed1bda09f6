"""The soup library, `from modelsoups import soup`; the pipeline's stage of that name is `modelsoups.soup.stage`."""
