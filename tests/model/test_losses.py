"""The losses equal their definitions in plain NumPy."""

import numpy as np
import pytest
import torch

from model.losses import (
    batch_hard_triplet_loss,
    circle_loss,
    global_triplet_loss,
    hinge,
    similarity_distillation_loss,
    soft_margin,
    softmax_loss,
)


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
    assert batch_hard_triplet_loss(features, labels, hinge(margin)).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_equal_features_give_a_finite_gradient() -> None:
    features = torch.ones(4, 8, requires_grad=True)
    batch_hard_triplet_loss(features, torch.tensor([0, 0, 1, 1]), hinge(0.3)).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_global_triplet_loss_ignores_the_stripes() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    parts = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    changed = parts.clone()
    changed[:, 3:] = 100
    assert (
        global_triplet_loss(parts, labels, hinge(0.3)).item() == global_triplet_loss(changed, labels, hinge(0.3)).item()
    )


def test_normalised_triplet_loss_does_not_depend_on_length() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    parts = torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(0))
    loss = global_triplet_loss(parts, labels, hinge(0.3), normalise=True).item()
    assert global_triplet_loss(parts * 7, labels, hinge(0.3), normalise=True).item() == pytest.approx(loss, rel=1e-5)


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


@pytest.mark.parametrize("seed", range(3))
def test_the_soft_margin_equals_its_definition(seed: int) -> None:
    features, labels = batch(seed)
    x, y = features.numpy().astype(np.float64), labels.numpy()
    expected = []
    for anchor in range(len(x)):
        distances = np.linalg.norm(x - x[anchor], axis=1)
        expected.append(np.log1p(np.exp(distances[y == y[anchor]].max() - distances[y != y[anchor]].min())))
    assert batch_hard_triplet_loss(features, labels, soft_margin).item() == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_circle_loss_equals_its_definition(seed: int) -> None:
    """Sun et al., equation 6: log(1 + sum over j of exp(s a_j (s_j - m)) * exp(-s a (s_p - 1 + m)))."""
    generator = torch.Generator().manual_seed(seed)
    cosines = [torch.rand(6, 5, generator=generator) * 2 - 1 for _ in range(2)]
    labels, scale, margin = torch.tensor([0, 1, 2, 3, 4, 0]), 16.0, 0.25
    expected = []
    for part in cosines:
        for row, label in zip(part.numpy().astype(np.float64), labels.tolist(), strict=True):
            right, wrong = row[label], np.delete(row, label)
            up = np.exp(-scale * max(1 + margin - right, 0) * (right - 1 + margin))
            down = np.exp(scale * np.maximum(wrong + margin, 0) * (wrong - margin)).sum()
            expected.append(np.log1p(up * down))
    assert circle_loss(cosines, labels, scale, margin).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_weights_of_the_circle_loss_have_no_gradient() -> None:
    """A cosine at its target 1 - m has the weight 2 m; a gradient through the weight would change the result."""
    cosines = torch.tensor([[0.75, -0.25]], requires_grad=True)
    circle_loss([cosines], torch.tensor([0]), 1.0, 0.25).backward()
    assert cosines.grad is not None
    share = 1 / (1 + np.exp(0.0 - 0.0))
    assert cosines.grad[0, 0].item() == pytest.approx(-0.5 * share, rel=1e-5)


def test_distillation_compares_cosines_of_any_dimension() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(6, 16)), rng.normal(size=(6, 5))
    student /= np.linalg.norm(student, axis=1, keepdims=True)
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    expected = np.square(student @ student.T - teacher @ teacher.T).mean()
    loss = similarity_distillation_loss(torch.tensor(student), torch.tensor(teacher))
    assert loss.item() == pytest.approx(expected)
    assert similarity_distillation_loss(torch.tensor(student), torch.tensor(student)).item() == 0
