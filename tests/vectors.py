"""A task without images, for tests of what is independent of images: four numbers in, one out, mean squared error."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from modelsoups.data.loader import index_batches
from modelsoups.stats.intervals import mean_interval
from modelsoups.tasks.task import Comparison, Task


class Line(nn.Module):
    """One linear layer on four numbers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, inputs_B4):
        return self.head(inputs_B4)


class Vectors:
    """A prepared set of vectors and what is to be predicted from them."""

    def __init__(self, seed, count=64):
        random = np.random.default_rng(seed)
        self.inputs_N4 = torch.from_numpy(random.normal(size=(count, 4)).astype(np.float32))
        self.labels_N = (self.inputs_N4 @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + 0.7).numpy()
        self.sha256, self.classes, self.folder, self.keys_N = f"vectors{seed}", ["value"], None, np.arange(count)

    def __len__(self):
        return len(self.labels_N)


class Regression(Task):
    def build(self, model, classes):
        torch.manual_seed(0)
        return Line().eval()

    def example(self, model):
        return torch.zeros(2, 4)

    def train_batches(self, model, recipe, data):
        for batch in index_batches(len(data.train), recipe, data.first, data.share):
            index_B = torch.tensor([index for _, index in batch])
            yield data.train.inputs_N4[index_B], torch.from_numpy(data.train.labels_N)[index_B]

    def test_batches(self, dataset, model):
        yield from dataset.inputs_N4.split(10)

    def inputs(self, dataset, model, index_B):
        return dataset.inputs_N4[index_B]

    def logits(self, model, batch):
        return model(batch)

    def loss(self, network, model, batch, labels_B, step):
        return F.mse_loss(network(batch)[:, 0], labels_B)

    def chance_loss(self, model, loss, classes):
        return 15.0

    def project(self, dataset, logits_NC):
        return logits_NC

    def points(self, logits_NC, labels_N):
        return self.score(self.outcomes(logits_NC, labels_N))

    def outcomes(self, logits_NC, labels_N):
        return -(logits_NC[:, 0] - labels_N).square().numpy()

    def score(self, outcomes_N):
        return float(outcomes_N.mean())

    def compare(self, one_N, two_N):
        return self.compare_means([(one_N, two_N)])

    def compare_means(self, pairs):
        return Comparison(*mean_interval([one - two for one, two in pairs]), p=float("nan"))
