"""Checks the prepared ImageNet sets with one public model, before the 33 GB of the 72 models are downloaded.

Usage: `modelsoups verify timm [KEY=VALUE ...]`, after `modelsoups prepare experiment=imagenet` or
experiment=released; give it the same data.dir. The model is timm's fine-tune of CLIP ViT-B/32 on
ImageNet (vit_base_patch32_clip_224.openai_ft_in1k, 350 MB, which timm downloads; model.tag=FILE takes
a file instead). It is evaluated on ImageNet, V2, R, Sketch, A and ReaL, as far as they are prepared
(ReaL: data.extra=[real]), and compared with the accuracies that timm publishes. The exit status is 0 if
all are within the tolerances of `published.reruns`, each alone and, without ReaL (other labels of ImageNet's
images), all together; it is 1 otherwise.

timm resizes the shorter side to 248 pixels before it crops 224 (crop_pct=0.9), and so does this command.
"""

from collections.abc import Mapping, Sequence

from modelsoups.checkpoints.states import state_sha256
from modelsoups.config.compose import load
from modelsoups.data.imagenet import metadata, relabelled
from modelsoups.experiment.experiment import Experiment
from modelsoups.models import from_timm
from modelsoups.models.classifier import state_of
from modelsoups.published import released, reruns, timm_results
from modelsoups.report.numbers import signed

NAMES = (timm_results.TEST, *timm_results.SHIFTED)  # val first: ReaL is scored from its logits
SETTINGS = ("experiment=imagenet", "model=clip_vit_b32_in1k", "evaluate.resize=248", "data.extra=[real]")
Accuracies = Mapping[str, float]  # set -> accuracy, 0 to 1


def main(argv: Sequence[str]) -> int:
    """Run `modelsoups verify timm` with these arguments, and return its exit status."""
    if "-h" in argv or "--help" in argv:
        print(__doc__)
        return 0
    experiment = Experiment(load([*SETTINGS, "name=verify-timm", *argv]))
    found = measured(experiment)
    print(text(found))
    return 0 if agrees(found) else 1


def measured(experiment: Experiment) -> dict[str, float]:
    """Return the model's accuracies on the prepared sets; ValueError if ImageNet's val is not prepared."""
    sets = experiment.sets
    if not sets.is_prepared(timm_results.TEST):
        folder = sets.folder(timm_results.TEST)
        raise ValueError(f"{folder} is not prepared; run `modelsoups prepare experiment=imagenet data.root=DIR` first")
    network = experiment.classifier(released.CLASSES)
    head = from_timm.load_head(experiment.config.model)
    network.head.load_state_dict(head.state_dict())
    state = state_of(network)
    sha256, found = state_sha256(state), {}
    for name in filter(sets.is_prepared, NAMES):
        if sets[name].scoring is None:
            found[name] = float(experiment.logits.of(name, sha256, state).correct_N.double().mean())
        else:
            val = experiment.logits.of(relabelled.OVER, sha256, state)
            correct_N, _ = relabelled.score(sets[name], val.logits_NC)
            found[name] = float(correct_N.mean())
    return found


def _differences(found: Accuracies) -> dict[str, float]:
    """Return measured minus published accuracy by data set, in percentage points."""
    published = timm_results.timm_models()[timm_results.SAME_CLIP].accuracy
    return {name: 100 * (accuracy - published[name]) for name, accuracy in found.items()}


def agrees(found: Accuracies) -> bool:
    """Return whether noise explains all differences, each alone and those of sets with own images together."""
    differences = _differences(found)
    each = all(abs(value) <= reruns.tolerance(name, 1, len(NAMES)) for name, value in differences.items())
    own = {name: value for name, value in differences.items() if name in reruns.IMAGES}
    return each and reruns.distance(own) <= reruns.largest_distance(len(own), 1)


def text(found: Accuracies) -> str:
    """Return a table of the accuracies beside those of timm, in percent, and the verdict."""
    lines = [f"{timm_results.SAME_CLIP}\n{'':<16}{'measured':>10}{'timm':>8}{'difference':>12}{'tolerance':>11}"]
    for name, difference in _differences(found).items():
        accuracy, tolerance = 100 * found[name], reruns.tolerance(name, 1, len(NAMES))
        wrong = "  differs" if abs(difference) > tolerance else ""
        numbers = f"{accuracy:>10.2f}{accuracy - difference:>8.2f}{signed(difference):>12}{tolerance:>11.2f}"
        lines.append(f"{metadata.SETS[name].title:<16}{numbers}{wrong}")
    if absent := [metadata.SETS[name].title for name in NAMES if name not in found]:
        lines.append(f"not prepared: {', '.join(absent)}")
    passed = "data, preprocessing and evaluation agree with timm's; the 72 models are worth downloading"
    failed = "check the files of the sets that differ before the 72 models are downloaded"
    return "\n".join([*lines, passed if agrees(found) else failed])
