"""The losses of MGN: softmax over identities and batch-hard triplets (paper, section 3.2), and their variants."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from model.architecture import GLOBAL_PARTS

TripletPenalty = Callable[[Tensor], Tensor]
"""`(N,)`: distance to the farthest positive minus distance to the nearest negative -> `(N,)` penalties."""


def softmax_loss(logits: list[Tensor], labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of several `(N, classes)` logits for the same labels `(N,)`."""
    losses = [F.cross_entropy(part, labels, label_smoothing=label_smoothing) for part in logits]
    return torch.stack(losses).mean()


def circle_loss(cosines: list[Tensor], labels: Tensor, scale: float, margin: float) -> Tensor:
    """Mean circle loss of several `(N, classes)` cosines for the same labels `(N,)`.

    Sun et al., arXiv 2002.10857, equation 8: each cosine is weighted by its distance from its optimum, which is
    1 + margin for the right class and -margin for the others.
    """
    losses = []
    for part in cosines:
        is_positive = F.one_hot(labels, part.shape[1]).bool()
        positive = scale * (1 + margin - part.detach()).clamp(min=0) * (part - (1 - margin))
        negative = scale * (part.detach() + margin).clamp(min=0) * (part - margin)
        losses.append(F.cross_entropy(torch.where(is_positive, positive, negative), labels))
    return torch.stack(losses).mean()


def hinge(margin: float) -> TripletPenalty:
    """The paper's penalty: zero if the negative is farther than the positive by the margin."""
    return lambda excess: F.relu(margin + excess)


def soft_margin(excess: Tensor) -> Tensor:
    """log(1 + exp(excess)), whose gradient never vanishes (Hermans et al., arXiv 1703.07737, section 2)."""
    return F.softplus(excess)


def batch_hard_triplet_loss(features: Tensor, labels: Tensor, penalty: TripletPenalty) -> Tensor:
    """Mean penalty of each anchor with its farthest positive and nearest negative (Hermans et al., arXiv 1703.07737).

    features: `(N, D)`; distances are Euclidean. labels: `(N,)`, at least two identities, each at least twice.
    """
    distances = _euclidean(features)
    same = labels[:, None] == labels[None, :]
    hardest_positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return penalty(hardest_positive - hardest_negative).mean()


def global_triplet_loss(parts: Tensor, labels: Tensor, penalty: TripletPenalty, normalise: bool = False) -> Tensor:
    """Mean batch-hard triplet loss of the three whole-crop parts of `(N, 8, 256)`.

    labels: `(N,)`. normalise: L2-normalise the parts first.
    """
    global_parts = parts[:, :GLOBAL_PARTS]
    if normalise:
        global_parts = F.normalize(global_parts, dim=2)
    losses = [batch_hard_triplet_loss(part, labels, penalty) for part in global_parts.unbind(1)]
    return torch.stack(losses).mean()


def similarity_distillation_loss(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between the cosines within a batch and the teacher's cosines of the same crops.

    embeddings: `(N, D)`, teacher: `(N, E)`, both L2-normalised; D and E need not be equal. Only
    similarities are distilled, not positions (similarity-preserving distillation, Tung & Mori, arXiv 1907.09682).
    """
    return F.mse_loss(embeddings @ embeddings.T, teacher @ teacher.T)


def global_distillation_loss(parts: Tensor, teacher: Tensor) -> Tensor:
    """The mean of the similarity distillation losses of the three whole-crop parts of `(N, 8, 256)`."""
    unit = F.normalize(parts[:, :GLOBAL_PARTS], dim=2)
    return torch.stack([similarity_distillation_loss(part, teacher) for part in unit.unbind(1)]).mean()


def _euclidean(features: Tensor) -> Tensor:
    """`(N, D)` -> `(N, N)` distances, with a finite gradient where two features are equal."""
    squared = features.pow(2).sum(1)
    distances = squared[:, None] + squared[None, :] - 2 * features @ features.T
    return distances.clamp(min=1e-12).sqrt()
