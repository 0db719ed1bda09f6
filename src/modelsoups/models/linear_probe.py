"""The linear probe: softmax regression on the frozen features of an encoder (Kumar et al. 2022)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups.config.schema import HeadsConfig
from modelsoups.models.classifier import Classifier, normalise
from modelsoups.workers.processes import advance


@torch.inference_mode()
def extract_features(model: Classifier, batches: Iterable[Tensor]) -> Tensor:
    """Return the features, (N, D), of batches of uint8 pixels, in float32 on the CPU."""
    features = []
    for pixels_BCHW in batches:
        features_BD = model.features(normalise(model, pixels_BCHW))
        features.append(features_BD.float().cpu())
        advance(len(pixels_BCHW))
    return torch.cat(features)


def linear_probe(
    features_ND: Tensor, labels_N: Tensor, start_CD: Tensor, heads: HeadsConfig, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the trained weights, (C, D), and biases, (C), of a softmax regression on features.

    AdamW trains for heads.lp_epochs with a cosine schedule, from weights start_CD and biases of
    zero; binary: with binary cross-entropy, summed over classes, in place of softmax (J.2.3).
    Shape letters: N images, D features, C classes.
    """
    features_ND = features_ND.clone()  # those of inference mode cannot be trained on
    weight_CD = start_CD.clone().requires_grad_()
    bias_C = torch.zeros(len(start_CD), requires_grad=True)
    optimizer = torch.optim.AdamW([weight_CD, bias_C], heads.lp_lr, weight_decay=heads.lp_weight_decay)
    steps_per_epoch = -(-len(labels_N) // heads.lp_batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, heads.lp_epochs * steps_per_epoch)
    generator = torch.Generator().manual_seed(heads.seed)
    for _ in range(heads.lp_epochs):
        order_N = torch.randperm(len(labels_N), generator=generator)
        for index_B in order_N.split(heads.lp_batch_size):
            logits_BC = features_ND[index_B] @ weight_CD.T + bias_C
            loss = _binary(logits_BC, labels_N[index_B]) if binary else F.cross_entropy(logits_BC, labels_N[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return weight_CD.detach(), bias_C.detach()


def _binary(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    targets_BC = F.one_hot(labels_B, logits_BC.shape[1]).float()
    return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / len(logits_BC)
