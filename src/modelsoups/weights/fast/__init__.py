"""Compiled loops over blocks of weights."""
