"""Model soups: fine-tune many times, average the weights, keep one better model (Wortsman et al., 2022)."""

__version__ = "0.1.0"
