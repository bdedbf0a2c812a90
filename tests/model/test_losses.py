"""The losses equal what plain NumPy makes of their definitions."""

import numpy as np
import pytest
import torch

from model.losses import batch_hard_triplet_loss, global_triplet_loss, softmax_loss


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 16, generator=generator), torch.arange(4).repeat_interleave(3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("margin", [0.3, 1.2])
def test_batch_hard_triplet_loss_equals_its_definition(seed: int, margin: float) -> None:
    features, labels = batch(seed)
    x, y = features.numpy().astype(np.float64), labels.numpy()
    expected = []
    for anchor in range(len(x)):
        distances = np.linalg.norm(x - x[anchor], axis=1)
        expected.append(max(0.0, margin + distances[y == y[anchor]].max() - distances[y != y[anchor]].min()))
    assert batch_hard_triplet_loss(features, labels, margin).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_equal_features_give_a_finite_gradient() -> None:
    features = torch.ones(4, 8, requires_grad=True)
    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1]), 0.3).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_global_triplet_loss_ignores_the_stripes() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    parts = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    changed = parts.clone()
    changed[:, 3:] = 100
    assert global_triplet_loss(parts, labels, 0.3).item() == global_triplet_loss(changed, labels, 0.3).item()


def test_normalised_triplet_loss_does_not_depend_on_length() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    parts = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    loss = global_triplet_loss(parts, labels, 0.3, normalise=True).item()
    assert global_triplet_loss(parts * 7, labels, 0.3, normalise=True).item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_loss_equals_its_definition(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = [torch.randn(6, 5, generator=generator) for _ in range(3)]
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    expected = []
    for part in logits:
        z = part.numpy().astype(np.float64)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        target = np.full_like(z, smoothing / 5)
        target[np.arange(6), labels.numpy()] += 1 - smoothing
        expected.append(-(target * log_p).sum(axis=1).mean())
    assert softmax_loss(logits, labels, smoothing).item() == pytest.approx(np.mean(expected), rel=1e-5)
