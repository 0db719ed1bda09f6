"""`modelsoups mix` and `doctor` parse their arguments without PyTorch, and name what is wrong."""

import subprocess
import sys

import pytest

from modelsoups import soup
from modelsoups.cli.mix_arguments import METHODS, parse

LIGHT = """
import sys
from modelsoups.cli import commands
try:
    commands.main(sys.argv[1:])
finally:
    heavy = {"torch", "numba", "scipy", "hydra", "matplotlib"} & sys.modules.keys()
    assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        ("mix -h", 0, "--dtype"),
        ("doctor -h", 0, "--heatmap"),
        ("mix uniform a.pt", 2, "required: -o/--out"),
        ("mix greedi a.pt -o x", 2, "invalid choice: 'greedi'"),
        ("doctor", 2, "required: checkpoints"),
        ("mix radin a.pt b.pt -o x", 1, "error: mix: radin needs --holdout; see `modelsoups mix -h`"),
    ],
)
def test_help_and_usage_errors_import_no_pytorch(args: str, status: int, told: str) -> None:
    command = [sys.executable, "-c", LIGHT, *args.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert told in done.stdout + done.stderr
    assert "AssertionError" not in done.stderr


def test_every_method_is_a_function_of_the_library() -> None:
    assert set(METHODS) - {"weights"} <= set(soup.__all__)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("greedy a b", "greedy needs --holdout or --evaluate; see `modelsoups mix -h`"),
        ("fisher a b", "fisher needs --holdout; see"),
        ("lines a b --alpha 0.2 --beta 0.8", "lines needs --init, the model that all were fine-tuned from"),
        ("lines a b --init c --alpha 0.2", "lines needs --beta: added to alpha in equal steps up to the last block"),
        ("wise_ft a b", "wise_ft needs --alpha: weight of the fine-tuned model"),
        ("wise_ft a b c --alpha 1", "wise_ft: got 3 checkpoints; expected two, the initialization first"),
        ("wise_ft a b --init c --alpha 1", "wise_ft: got 2 checkpoints; expected one, beside --init or --base"),
        ("uniform a b --alpha 0.5", "--alpha is an option of wise_ft, lines; uniform has no such option"),
        ("uniform a b --exact", "--exact is an option of fisher; uniform has no such option"),
        ("uniform a b --coefficients 1 1", "--coefficients is an option of weights, fisher; uniform has no such"),
        ("uniform a b --evaluate m:f", "--evaluate is an option of greedy, pruned; uniform has no such option"),
        ("uniform a b --batchnorm m:f", "--batchnorm needs --holdout MODULE:FUNCTION"),
        ("weights a b", "--coefficients: expected 2 numbers, one per checkpoint"),
        ("fisher a b --holdout m:f --coefficients 1", "--coefficients: expected 2 numbers, one per checkpoint"),
    ],
)
def test_what_is_missing_or_does_not_apply_is_named(args: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^\S") as error:
        parse([*args.split(), "-o", "x.safetensors"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_only_given_options_reach_the_method() -> None:
    """So that a default stands in the method's signature alone."""
    args = parse(["learned", "a", "b", "--holdout", "m:f", "--by", "layer", "--lr", "0.5", "-o", "x"])
    assert args.given == {"by": "layer", "lr": 0.5}
    assert parse(["greedy", "a", "b", "--evaluate", "m:f", "--strict", "-o", "x"]).given == {"strict": True}
    assert parse(["weights", "a", "b", "--coefficients", "2", "-1e-3", "-o", "x"]).coefficients == [2.0, -0.001]
