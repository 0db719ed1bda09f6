"""List of all analyses in the paper's order; a new one also needs a line in analyses.jsonl."""

import difflib
from collections.abc import Sequence

from modelsoups.analyses.analysis import Analysis
from modelsoups.analyses.effective_robustness import ROBUSTNESS
from modelsoups.analyses.figure_2_j1_landscape import LANDSCAPE
from modelsoups.analyses.figure_3_angle import ANGLE
from modelsoups.analyses.figure_4_ensemble import ENSEMBLE
from modelsoups.analyses.figure_5_l3_methods import FIGURE_5, METHODS_COMPARED
from modelsoups.analyses.figure_b1_h1_h4_model_counts import MODEL_COUNTS
from modelsoups.analyses.figure_b2_calibration import CALIBRATION
from modelsoups.analyses.figure_d1_wise_ft import WISE_FT
from modelsoups.analyses.figure_e1_across_sets import ACROSS_SETS
from modelsoups.analyses.figure_f1_grids import GRIDS
from modelsoups.analyses.figure_g4_seeds import SEEDS
from modelsoups.analyses.figure_k1_equation_1 import EQUATION_1
from modelsoups.analyses.figure_l1_l2_averages import AVERAGES, AVERAGES_LABELS
from modelsoups.analyses.table_3_selection import SELECTION
from modelsoups.analyses.table_4_oracle import TABLE_1, TABLE_4, TABLE_C1
from modelsoups.analyses.table_l1_l2_augmentation import TABLE_L1, TABLE_L2
from modelsoups.analyses.table_l3_sam import TABLE_L3

_ALL = [LANDSCAPE, ANGLE, ENSEMBLE, FIGURE_5, SELECTION, TABLE_1, TABLE_4, EQUATION_1, MODEL_COUNTS[0], CALIBRATION]
_ALL += [
    TABLE_C1,
    WISE_FT,
    ACROSS_SETS,
    GRIDS,
    SEEDS,
    *MODEL_COUNTS[1:],
    TABLE_L1,
    TABLE_L2,
    AVERAGES,
    AVERAGES_LABELS,
    TABLE_L3,
    METHODS_COMPARED,
]
_ALL.append(ROBUSTNESS)  # beyond the paper
ANALYSES: dict[str, Analysis] = {analysis.name: analysis for analysis in _ALL}


def wanted(names: Sequence[str]) -> list[Analysis]:
    """Return the analyses with these names in the paper's order; ValueError if one is unknown.

    Without names: all but those that must be asked for.
    """
    for name in names:
        if name not in ANALYSES:
            near = difflib.get_close_matches(name, ANALYSES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"analyse.which: no analysis is named {name}; {hint}Choose from {', '.join(ANALYSES)}")
    return [a for a in ANALYSES.values() if a.name in names or not (names or a.asked)]
