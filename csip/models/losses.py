"""The losses as plain functions, in float32 whatever the precision around them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LearnableTemperature(nn.Module):
    """The factor that similarities are multiplied by, ``1 / tau``, learnable and bounded as CLIP's.

    Parameters
    ----------
    tau : float
        The temperature to start from.
    learnable : bool
        False keeps `tau` as it is.
    largest : float
        Upper bound of the factor.
    """

    def __init__(self, tau: float = 0.07, learnable: bool = True, largest: float = 100.0) -> None:
        super().__init__()
        self.largest = largest
        self.log_scale = nn.Parameter(torch.tensor(-math.log(tau)), requires_grad=learnable)

    def scale(self) -> Tensor:
        """Return the factor, a scalar."""
        return self.log_scale.clamp(max=math.log(self.largest)).exp()


def _without_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def supervised_contrastive(visual: Tensor, skeleton: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Return the supervised contrastive loss between two modalities, both ways.

    ``L_v2s = -1/B sum_i 1/|P(i)| sum_{p in P(i)} log(exp(<v_i, s_p> / tau) / sum_a exp(<v_i, s_a> / tau))`` with
    ``P(i) = {p : y_p = y_i}``, which holds i itself; L_s2v with the roles changed; their sum is returned.

    Parameters
    ----------
    visual, skeleton : Tensor
        (B, C), row i of both from clip i; L2-normalised by the caller where similarities are to be cosines.
    labels : Tensor
        (B,) identities.
    scale : Tensor or float
        ``1 / tau``.
    """
    with _without_autocast(visual):
        logits = scale * visual.float() @ skeleton.float().T
        positive = (labels[:, None] == labels[None, :]).float()
        target = positive / positive.sum(dim=1, keepdim=True)
        return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


def contrast_within(features: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Return the supervised contrastive loss among clips of one modality (Khosla et al., NeurIPS 2020, L_out).

    ``-1/B sum_i 1/|P(i)| sum_{p in P(i)} log(exp(<f_i, f_p> / tau) / sum_{a != i} exp(<f_i, f_a> / tau))`` with
    ``P(i) = {p != i : y_p = y_i}``; a clip without a positive adds nothing.

    Parameters
    ----------
    features : Tensor
        (B, C); L2-normalised by the caller where similarities are to be cosines.
    labels : Tensor
        (B,) identities.
    scale : Tensor or float
        ``1 / tau``.
    """
    with _without_autocast(features):
        features = features.float()
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        logits = (scale * features @ features.T).masked_fill(itself, torch.finfo(torch.float32).min)
        positive = ((labels[:, None] == labels[None, :]) & ~itself).float()
        return F.cross_entropy(logits, positive / positive.sum(dim=1, keepdim=True).clamp(min=1))


def prototype_logits(features: Tensor, prototypes: Tensor, scale: Tensor | float, normalize: bool = True) -> Tensor:
    """Return the scaled similarity of each clip to its own view of the prototypes.

    Parameters
    ----------
    features : Tensor
        (B, C).
    prototypes : Tensor
        (B, N, C), or (N, C) where they are the same for all clips.
    scale : Tensor or float
        ``1 / tau``.
    normalize : bool
        Cosine similarity if True, inner product if not.

    Returns
    -------
    Tensor
        (B, N) float32.
    """
    with _without_autocast(features):
        features, prototypes = features.float(), prototypes.float()
        if normalize:
            features, prototypes = F.normalize(features, dim=-1), F.normalize(prototypes, dim=-1)
        if prototypes.ndim == 2:
            return scale * features @ prototypes.T
        return scale * (prototypes @ features[:, :, None]).squeeze(2)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Return label-smoothed cross-entropy: the target is ``(1 - smoothing) onehot + smoothing / N``.

    Parameters
    ----------
    logits : Tensor
        (B, N), or (B, T, N) for one decision a frame, averaged over frames.
    labels : Tensor
        (B,), one a clip.
    smoothing : float
        Probability given to all identities alike.
    """
    if logits.ndim == 3:
        labels = labels[:, None].expand(logits.shape[:2]).flatten()
        logits = logits.flatten(0, 1)
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """Return the triplet loss of each clip's farthest positive and nearest negative, Euclidean.

    ``mean_i max(0, margin + max_p |f_i - f_p| - min_n |f_i - f_n|)`` over the anchors i that have another clip of
    their identity and a clip of another one; 0 if no anchor has both.

    Parameters
    ----------
    features : Tensor
        (B, D).
    labels : Tensor
        (B,).
    margin : float
        In the unit of the features.
    """
    with _without_autocast(features):
        features = features.float()
        # Not by matrix products: their rounding is largest where distances are smallest, and has no gradient at 0.
        distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels[:, None] == labels[None, :]
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        farthest = distance.masked_fill(~positive, 0.0).amax(dim=1)
        nearest = distance.masked_fill(same, float("inf")).amin(dim=1)
        anchors = positive.any(dim=1) & (~same).any(dim=1)
        losses = torch.where(anchors, F.relu(margin + farthest - nearest), 0.0)
        return losses.sum() / anchors.sum().clamp(min=1)


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the cosine between student and teacher, averaged; the teacher gets no gradient.

    Descriptors are compared by direction alone, so direction is what the student has to learn.

    Parameters
    ----------
    student, teacher : Tensor
        (..., D).
    """
    with _without_autocast(student):
        return (1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).mean()
