"""Accuracy where an image has several right answers, by hand."""

import pytest
import torch

from modelsoups.stats import multilabel


def test_a_prediction_is_right_if_it_is_one_of_the_answers():
    logits_NC = torch.eye(4)[[0, 1, 2, 3]]
    answers_NA = torch.tensor([[0, -1], [0, 2], [3, 2], [-1, -1]])
    assert multilabel.correct(logits_NC, answers_NA).tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="logits of 4 images, but correct classes of 3"):
        multilabel.correct(logits_NC, answers_NA[:3])


def test_merged_logits_have_the_first_answer_on_top_if_any_answer_is():
    logits_NC = torch.tensor([[1.0, 4, 3, 2], [1, 4, 3, 2], [4, 1, 2, 3]])
    answers_NA = torch.tensor([[2, 1, -1], [0, 3, 2], [0, -1, -1]])
    merged_NC = multilabel.merged(logits_NC, answers_NA)
    assert merged_NC.tolist() == [[1, 1, 4, 2], [3, 4, 1, 1], [4, 1, 2, 3]]
    right_N = merged_NC.argmax(dim=1) == answers_NA[:, 0]
    assert right_N.tolist() == multilabel.correct(logits_NC, answers_NA).tolist() == [True, False, True]


def test_an_average_over_classes_weighs_the_images_of_a_small_class_more():
    classes_N = torch.tensor([0, 0, 0, 0, 7])  # two classes: 4 images and 1
    weight_N = multilabel.weights(classes_N)
    assert weight_N.tolist() == [0.125] * 4 + [0.5]
    correct_N = torch.tensor([True, True, True, False, False])  # class 0: 3 of 4, class 7: 0 of 1
    assert float(correct_N.double() @ weight_N) == (3 / 4 + 0) / 2
    with pytest.raises(ValueError, match="no images"):
        multilabel.weights(classes_N[:0])
