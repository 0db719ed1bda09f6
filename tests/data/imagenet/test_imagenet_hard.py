"""ImageNet-Hard: parquet files whose images have several classes become a set that is scored by any of them."""

from types import SimpleNamespace

import pytest
import torch
from layouts import originals, picture
from test_imagenet_prepare import config, opened

from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.logits import LogitsCache
from modelsoups.stages import prepare

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ANSWERS = [[[904, 17], [3]], [[17]]]  # of the images of two files


def rows_of(answers):
    pictures = [{"bytes": picture(f"hard {row}"), "path": None} for row in answers]
    more = [{"origin": "imagenet_sketch", "english_label": ["x"] * len(row)} for row in answers]
    return [{"image": image, "label": row, **m} for image, row, m in zip(pictures, answers, more, strict=True)]


def write(root):
    """The files as the authors' repository at Hugging Face has them."""
    folder = root / "imagenet-hard" / "data"
    folder.mkdir(parents=True)
    for number, answers in enumerate(ANSWERS):
        name = f"validation-{number:05d}-of-{len(ANSWERS):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows_of(answers)), folder / name)
    return folder


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    root = originals(tmp_path_factory.mktemp("hard"), "folder")
    write(root)
    made = config(root, "data.extra=[hard]", "data.shifts=[]", "data.workers=1")
    assert prepare.run(Experiment(made))
    assert not prepare.run(Experiment(made))
    return made


def test_images_keep_all_their_classes(cfg):
    hard = opened(cfg, "hard")
    assert (hard.title, hard.role, hard.projection) == ("ImageNet-Hard", "extra", None)
    assert hard.labels_N.tolist() == [3, 17, 904]  # the first of each image's classes
    assert hard.answers_NA.tolist() == [[3, -1], [17, -1], [904, 17]]
    assert [hard.read(i) for i in range(3)] == [picture(f"hard {row}") for row in ([3], [17], [904, 17])]
    assert opened(cfg, "val").answers_NA is None
    assert Experiment(cfg).sets.tests() == ["val", "hard"]


def test_an_image_is_right_if_the_best_class_is_any_of_its_own(cfg):
    """The best classes are 5, 17 and 17: the first image is wrong, the others are right."""
    raw_NC = torch.zeros(3, 1000)
    raw_NC[range(3), [5, 17, 17]] = 1
    task = SimpleNamespace(
        view="",
        test_order=lambda dataset, model: torch.tensor([2, 0, 1]),
        test_batches=lambda dataset, model: [torch.tensor([2, 0]), torch.tensor([1])],
        logits=lambda model, batch: raw_NC[batch],
        project=lambda dataset, logits_NC: logits_NC,
    )
    experiment = Experiment(cfg)
    cache = LogitsCache(experiment.files, experiment.sets, task, lambda classes: torch.nn.Identity())
    found_NC = cache.forward("hard", {})
    assert (found_NC.argmax(dim=1) == torch.from_numpy(opened(cfg, "hard").labels_N)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"label": []}, "an image has label '[]', not a list of classes from 0 to 999; download it again"),
        ({"label": [3, 1000]}, "an image has label '[3, 1000]', not a list of classes"),
        ({"label": 3}, "an image has label '3', not a list of classes"),
        ({"image": {"bytes": None, "path": "a.png"}}, "a row has no image bytes (image.bytes); download it again"),
    ],
)
def test_rows_without_classes_or_images_are_refused(tmp_path, row, says):
    path = tmp_path / "given" / "validation-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([{**rows_of([[3]])[0], **row}]), path)
    made = config(tmp_path, f"data.sources.hard={path.parent}", "data.extra=[hard]", "data.shifts=[]", "data.workers=1")
    with pytest.raises(ValueError, match=r".") as error:
        prepare.run(Experiment(made))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


def test_missing_files_are_named(tmp_path):
    made = config(tmp_path, f"data.sources.hard={tmp_path}", "data.extra=[hard]", "data.shifts=[]")
    with pytest.raises(ValueError, match=r"data\.sources\.hard: .* has no imagenet-hard/"):
        prepare.run(Experiment(made))
