"""Model soups: fine-tune many times, average the weights, keep one better model (Wortsman et al., 2022)."""

import sys

from modelsoups.moved import Moved

__version__ = "0.1.0"
sys.meta_path.append(Moved())
