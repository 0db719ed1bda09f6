"""Model soups: average the weights of many fine-tuned models into one (Wortsman et al., 2022)."""

import sys

from modelsoups.moved import Moved

__version__ = "0.2.0"
sys.meta_path.append(Moved())
