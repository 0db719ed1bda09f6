"""Every analysis, in the order of the paper. A new one is a file and a line here."""

from modelsoups.analyses import baselines, choosing, curves, equation_1, grids, landscape, pairs, robust, seeds
from modelsoups.analyses.analysis import Analysis

ANALYSES: dict[str, Analysis] = {
    a.name: a
    for a in (
        landscape.LANDSCAPE,
        pairs.ADVANTAGE,
        pairs.SOUP_AND_ENSEMBLE,
        choosing.SELECTION,
        choosing.TABLE_4,
        equation_1.EQUATION_1,
        curves.CURVES[0],
        seeds.CALIBRATION,
        robust.ROBUST,
        grids.GRIDS,
        seeds.BUDGET,
        *curves.CURVES[1:],
        baselines.TABLE_L1,
        baselines.TABLE_L2,
        baselines.TRAJECTORY,
        baselines.TRAJECTORY_LABELS,
        baselines.TABLE_L3,
        robust.SCATTER,
    )
}
