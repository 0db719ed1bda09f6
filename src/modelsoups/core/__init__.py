"""The pure part: coefficients, mixing, metrics, statistics. Imports torch, numpy, scipy and safetensors only."""
