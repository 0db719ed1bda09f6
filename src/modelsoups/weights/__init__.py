"""Weights of many checkpoints: algebra, streamed mixing, digests, angles, planes."""
