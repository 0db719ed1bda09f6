"""Ours beside the released results and the paper's."""

import pytest
from hand_report import evidence, html, numbers_of, row

from modelsoups.report import beside_published, table_3
from modelsoups.report.numbers import MEAN, Result


def ours(accuracy, half):
    low, high = (accuracy - half) / 100, (accuracy + half) / 100
    return Result("soup", "greedy", MEAN, 0, 0, accuracy / 100, low, high)


def test_differences_outside_the_interval_are_marked():
    cells = beside_published.cells
    assert cells(ours(81.0, 0.34), 81.03, 80.5) == ["81.00", "81.03", "-0.03", "80.50", "+0.50*"]
    assert cells(None, 50.86, 50.75) == ["not available", "50.86", "", "50.75", ""]
    assert cells(ours(47.1, 0.3), 47.15, None) == ["47.10", "47.15", "-0.05", "", ""]


CLIP = {"name": "ViT-B-32-quickgelu", "library": "open_clip", "tag": "openai"}


def numbers_with(model, protocol="released", library="imagenet", **changes):
    config = {"model": model, "protocol": protocol, "data": {"library": library}}
    return numbers_of(evidence(provenance={"config": config}, **changes))


@pytest.mark.parametrize(
    ("model", "library", "applies"),
    [
        (CLIP, "imagenet", True),
        ({**CLIP, "tag": None}, "imagenet", True),
        ({**CLIP, "tag": "/a/folder/ViT-B-32.pt"}, "imagenet", True),
        ({**CLIP, "tag": "laion400m_e32"}, "imagenet", False),
        ({**CLIP, "name": "ViT-B-16-quickgelu"}, "imagenet", False),
        ({"name": "vit_base_patch32_224", "library": "timm", "tag": "augreg_in21k"}, "imagenet", False),
        (CLIP, "folders", False),
    ],
)
def test_only_the_papers_model_on_imagenet_is_compared_with_its_numbers(model, library, applies):
    numbers = numbers_with(model, library=library)
    assert beside_published.applies(numbers) == applies
    page = html(numbers)
    assert ("Comparison with the published numbers" in page) == applies
    other = "with another model" if library == "imagenet" else "on other data"
    assert (f"CLIP ViT-B/32 on ImageNet: {other} compare the gains" in page) == (not applies)


def test_the_authors_learned_soup_stands_beside_the_number_of_their_code():
    rows = {**evidence().rows, "learned_tensors": row("learned_tensors", 60, 6, 9)}
    released = numbers_with(CLIP, rows=rows)
    lines = {line.row: line for line in table_3.method_rows(released)}
    assert lines["learned_tensors"].ours == ["60.00", "52.50"]
    assert lines["learned_tensors"].theirs == ["81.38", ""]
    compared = {line[0]: line for line in beside_published.comparison(released)}
    assert compared["Learned soup (by tensor; authors' code)"][1:6] == ["60.00", "81.38", "-21.38*", "", ""]
    assert "learned_bylayer.py" in html(released)
    paper = numbers_with(CLIP, protocol="paper", rows=rows)  # with other settings than the authors'
    lines = {line.row: line for line in table_3.method_rows(paper)}
    assert lines["learned_tensors"].theirs == ["", ""]
    assert not any(line[0].startswith("Learned soup (by tensor") for line in beside_published.comparison(paper))
