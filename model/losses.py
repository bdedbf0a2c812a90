"""The losses of MGN: softmax over identities and batch-hard triplets (paper, section 3.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.architecture import GLOBAL_PARTS


def softmax_loss(logits: list[Tensor], labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of several `(N, classes)` logits for the same labels `(N,)`."""
    losses = [F.cross_entropy(part, labels, label_smoothing=label_smoothing) for part in logits]
    return torch.stack(losses).mean()


def batch_hard_triplet_loss(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Triplets of each anchor with its farthest positive and nearest negative (Hermans et al., arXiv 1703.07737).

    features: `(N, D)`; labels: `(N,)`, each identity at least twice and at least two identities. Returns the mean of
    `max(0, margin + d(anchor, positive) - d(anchor, negative))` over the batch, d Euclidean.
    """
    distances = _euclidean(features)
    same = labels[:, None] == labels[None, :]
    hardest_positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.relu(margin + hardest_positive - hardest_negative).mean()


def global_triplet_loss(parts: Tensor, labels: Tensor, margin: float, normalise: bool = False) -> Tensor:
    """Mean batch-hard triplet loss of the three whole-crop parts of `(N, 8, 256)`; none on the stripes."""
    globals_ = parts[:, :GLOBAL_PARTS]
    if normalise:
        globals_ = F.normalize(globals_, dim=2)
    losses = [batch_hard_triplet_loss(part, labels, margin) for part in globals_.unbind(1)]
    return torch.stack(losses).mean()


def _euclidean(features: Tensor) -> Tensor:
    """`(N, D)` -> `(N, N)` distances, with a gradient that stays finite where two features are equal."""
    squared = features.pow(2).sum(1)
    distances = squared[:, None] + squared[None, :] - 2 * features @ features.T
    return distances.clamp(min=1e-12).sqrt()
