"""ImageNet-C, -D, -W and -X: found in their authors' layouts, with their labels and scores."""

import json
import shutil

import pytest
import torch
from layouts import originals, picture, put
from test_imagenet_prepare import config, opened

from modelsoups.data.imagenet import metadata, projections, relabelled, sources
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare
from modelsoups.stats.projection import project

CORRUPTED = ("n01440764/ILSVRC2012_val_00000293.JPEG", "n01443537/ILSVRC2012_val_00000236.JPEG")
FACTORS_OF = {2: ["pose"], 3: ["pose", "color"], 10: [], 100: ["color"]}  # number of the image of val -> its factors
PROTOTYPE = 100
SETS = ("c_fog_3", "d_texture", "d_material", "w", "x_pose", "x_color", "x_all")


def write(root):
    """The folders as they unpack: ImageNet-C's weather.tar, ImageNet-D.tar, and imagenet_x/annotations."""
    for path in CORRUPTED:
        for folder in ("fog/3", "fog/4", "imagenet-w"):
            put(root / folder / path, picture(f"{folder}/{path}"))
    for path in ("texture/tea_cup/0.png", "texture/alarm_clock/1.png", "material/t_shirt/2.png"):
        put(root / "ImageNet-D" / path, picture(path))
    put(root / "ImageNet-D" / "questions" / "texture.csv", b"image,question\n")
    rows = []
    for number, factors in FACTORS_OF.items():
        row = {"file_name": name_of(number), "class": metadata.val_labels()[number - 1]}
        rows.append(row | {factor: int(factor in factors) for factor in metadata.FACTORS} | {"one_word": "grass"})
    put(root / "annotations" / relabelled.X_FILES[0], "".join(json.dumps(row) + "\n" for row in rows).encode())
    put(root / "annotations" / relabelled.X_FILES[1], f"file_name\n{name_of(PROTOTYPE)}\n".encode())
    return root


def name_of(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    root = write(originals(tmp_path_factory.mktemp("optional"), "folder"))
    made = config(root, f"data.extra=[{','.join(SETS)}]", f"data.sources.x={root}/annotations", "data.shifts=[]")
    assert prepare.run(Experiment(made))
    assert not prepare.run(Experiment(made))
    return made


def test_all_optional_sets_are_prepared_with_the_labels_of_their_folders(cfg):
    for name, title in (("c_fog_3", "ImageNet-C fog 3"), ("w", "ImageNet-W")):
        dataset = opened(cfg, name)
        assert (dataset.title, dataset.role, dataset.labels_N.tolist()) == (title, "extra", [0, 1])
    folders = projections.label_names("d_texture")
    assert [folders[label] for label in opened(cfg, "d_texture").labels_N] == ["alarm_clock", "tea_cup"]
    assert [folders[label] for label in opened(cfg, "d_material").labels_N] == ["t_shirt"]
    sets = Experiment(cfg).sets
    assert sets.tests() == ["val", "c_fog_3", "d_texture", "d_material", "w"]
    assert sets.relabelled() == ["x_pose", "x_color", "x_all"]


def test_an_image_of_imagenet_d_is_right_if_the_best_of_all_classes_is_in_its_group():
    logits_NC = torch.zeros(3, 1000)
    logits_NC[0, 530] = 1  # digital clock, one of two classes of an alarm clock
    logits_NC[1, 0] = 1  # a class that no folder has
    logits_NC[2, 968] = 1  # cup
    predicted_N = project(logits_NC, projections.projection("d_texture")).argmax(dim=1)
    folders = projections.label_names("d_texture")
    assert [folders[predicted_N[0]], folders[predicted_N[2]]] == ["alarm_clock", "tea_cup"]
    assert predicted_N[1] >= len(folders) == 113
    assert sorted(folders)[:3] == ["alarm_clock", "backpack", "banana"]


def test_imagenet_x_divides_vals_logits_by_factor_without_prototypes(cfg):
    val = opened(cfg, "val")
    logits_NC = torch.zeros(len(val), 1000)
    right = list(val.keys_N).index("ILSVRC2012_val_00000002")
    logits_NC[right, metadata.val_labels()[1]] = 1
    wrong = list(val.keys_N).index("ILSVRC2012_val_00000003")
    logits_NC[wrong, (metadata.val_labels()[2] + 1) % 1000] = 1
    for name, images, correct in (("x_pose", 2, 1), ("x_color", 1, 0)):
        correct_N, weights_N = relabelled.score(opened(cfg, name), logits_NC)
        assert (len(correct_N), correct_N.sum(), weights_N) == (images, correct, None)
    assert sorted(opened(cfg, "x_all").keys_N) == [f"ILSVRC2012_val_{n:08d}" for n in (2, 3, 10)]
    assert not list((opened(cfg, "x_all").folder).glob("*.tar"))


def test_the_families_have_all_their_sets():
    names = list(metadata.SETS)
    assert sum(name.startswith("c_") for name in names) == 19 * 5
    assert sum(name.startswith("x_") for name in names) == 17
    groups = projections.projection("d_background")["groups"]
    assert sorted(index for group in groups for index in group) == list(range(1000))


def refused(cfg):
    with pytest.raises(ValueError, match=r".") as error:
        prepare.run(Experiment(cfg))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_and_wrong_files_are_named(tmp_path, capsys):
    root = write(originals(tmp_path, "folder"))
    few = ["data.shifts=[]", "data.workers=1"]
    said = refused(config(root, *few, "data.extra=[c_rain_3]"))
    assert "unknown data set c_rain_3; choose from train, holdout" in said
    assert "c_CORRUPTION_SEVERITY (c_fog_3)" in said
    assert f"data.sources.c: {root}/imagenet-w has no imagenet-c/snow/1/" in refused(
        config(root, *few, "data.extra=[c_snow_1]", f"data.sources.c={root}/imagenet-w")
    )
    assert "x_pose: not available" in sets_missing(config(root, *few, "data.extra=[x_pose]"), capsys)
    annotations = root / "annotations" / relabelled.X_FILES[0]
    given = [*few, "data.extra=[x_pose]", f"data.sources.x={root}/annotations"]
    whole = annotations.read_text()
    for old, new, message in (
        ('"pose": 1', '"pose": 2', "line 1: pose is 2, expected 0 or 1"),
        ('"class": ', '"class": 9', "line 1: ILSVRC2012_val_00000002 has class"),
        ("ILSVRC2012_val_00000002", "n01440764_2", "line 1 names no validation image"),
    ):
        annotations.write_text(whole.replace(old, new, 1))
        assert message in refused(config(root, *given))
    (root / "annotations" / relabelled.X_FILES[1]).unlink()
    assert "prototypical_paths.csv does not exist; set data.sources.x to the folder" in refused(config(root, *given))
    put(root / "ImageNet-D" / "texture" / "teacup" / "3.png", picture("3"))
    said = refused(config(root, *few, "data.extra=[d_texture]"))
    assert "teacup is not a class folder of ImageNet-D texture; expected 113 folders" in said


def sets_missing(cfg, capsys):
    prepare.run(Experiment(cfg))
    shutil.rmtree(cfg.data.dir)
    return capsys.readouterr().out


def test_a_family_is_found_below_its_own_folder(tmp_path):
    write(tmp_path)
    found = sources.find("c_fog_4", None, str(tmp_path))
    assert found.paths == (tmp_path / "fog" / "4",)
    assert sources.find("d_material", str(tmp_path), None).paths == (tmp_path / "ImageNet-D" / "material",)
