"""A pico run with further pools: the fewest models that every analysis can be made of."""

import json
from pathlib import Path

from pico import arguments

BASE = {"weight_decay": 0.1, "label_smoothing": 0.0, "epochs": 1, "mixup": 0.0, "seed": 0, "aug": "minimal"}
THREE = ("minimal", "medium", "strong")
LONGER = (("stochastic", 1), ("stochastic", 3), ("fix", 1), ("fix", 4))
POOLS = {  # the fewest models that the analyses of each pool need; what fits no pool of the paper is in the first
    "standard_lp": [
        *({"lr": lr, "aug": aug} for lr in (1e-3, 3.3e-4) for aug in THREE),
        *({"lr": 1e-3, "aug": aug, "epochs": epochs} for aug, epochs in LONGER),
        {"lr": 1e-3, "optimizer": "adam"},
    ],
    "extreme_lp": [{"lr": 3.3e-3, "aug": "medium"}],
    "standard_zs": [{"lr": 1e-3}, {"lr": 1e-4}, {"lr": 1e-3, "seed": 1}],
    "extreme_zs": [{"lr": 1e-2}],
    "theory": [{"lr": 3.3e-4}, {"lr": 3.3e-4, "seed": 1}, {"lr": 3.3e-4, "aug": "strong", "mixup": 0.5}],
    "seeds": [{"lr": 6.7e-4, "seed": seed} for seed in (0, 1)],
    "seeds_labels": [{"lr": 6.7e-4, "seed": seed} for seed in (0, 1)],
    "trajectory": [{"lr": 3.3e-4, "aug": aug} for aug in ("minimal", "medium")],
    "trajectory_labels": [{"lr": 3.3e-4, "aug": aug} for aug in ("minimal", "medium")],
    "sam": [{"lr": 1e-3, "aug": "medium", "seed": s, "sam": r} for s, r in ((1, 0.0), (0, 0.05), (1, 0.05))],
    "distilled": [{"lr": 1e-3}, {"lr": 1e-3, "aug": "stochastic"}],
}
LABELLED = ["model.library=timm", "model.name=test_resnet", "model.normalize_features=false"]
EXTRA = {
    "standard_zs": ["heads.init=zeroshot"],
    "extreme_zs": ["heads.init=zeroshot"],
    "trajectory": ["recipe.ema=[0.9]", "recipe.swa=[0.0]"],
    "seeds_labels": LABELLED,
    "trajectory_labels": [*LABELLED, "recipe.ema=[0.9]"],
    "distilled": ["recipe.teachers=['{pools}/standard_lp/ingredients/000','{pools}/standard_lp/ingredients/001']"],
}


def options(home: Path, data: Path) -> list[str]:
    """Write the searches and the experiment `pico` into a folder; the arguments of the command line."""
    pools = {}
    for name, recipes in POOLS.items():
        search = home / f"{name}.jsonl"
        search.write_text("".join(json.dumps({**BASE, **recipe}) + "\n" for recipe in recipes))
        pools[name] = [f"sweep.search={search}", *EXTRA.get(name, [])]
    (home / "conf/experiment").mkdir(parents=True)
    lines = "\n".join(f"    {name}: {json.dumps(overrides)}" for name, overrides in pools.items())
    (home / "conf/experiment/pico.yaml").write_text(
        "# @package _global_\nname: pico\nsweep:\n  search: miniature_random\nrecipe:\n  batch_size: 64\n"
        "  warmup_steps: 2\n  min_crop: 0.9\n  flip: 0.0\nanalyse:\n  rates: [1.0e-3, 3.3e-4]\n  epochs: 1\n"
        f"  grid_images: 48\n  images: 48\n"
        f"  equation_images: 24\n  grid: 2\n  alphas: [0.0, 0.5, 1.0]\n  orders: 2\n  pairs: 6\n"
        f"  pools:\n{lines}\n"
    )
    folders = [f"runs={home / 'runs'}", f"results={home / 'results'}"]
    return ["experiment=pico", *arguments(home, data), *folders]
