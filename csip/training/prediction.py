"""What the prediction of skeletons learns before stage 2: the joints in the tokens of an image encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from csip.config import Settings
from csip.data.clips import batch_pixels
from csip.data.samplers import IdentityBatches
from csip.models.losses import joint_error
from csip.models.skeleton_prediction import SkeletonPrediction
from csip.models.vision import VisionEncoder
from csip.monitor import Monitor
from csip.runtime import gather
from csip.training.schedules import cosine

LR = 1e-3


def teach_prediction(
    prediction: SkeletonPrediction,
    vision: VisionEncoder,
    loader: DataLoader,
    sampler: IdentityBatches,
    settings: Settings,
    fabric: Fabric,
    monitor: Monitor,
) -> None:
    """Teach the prediction by true joints, then its encoder what predicted joints look like.

    Without the latter a skeleton encoder takes the small differences between predicted bodies for none at all. A run that is
    stopped in here begins it again.

    Parameters
    ----------
    loader, sampler
        Of the training clips, as the epochs take them; ``stage2.prediction_epochs`` passes teach, one more measures.
    """
    vision.eval()
    passes, steps = settings.stage2.prediction_epochs, len(loader)
    task, done, batches = "teaching the prediction of skeletons", 0, (passes + 1) * steps
    parameters = list(prediction.project.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR)
    for number in range(passes):
        sampler.set_epoch(number)
        for tokens, batch in _encoded(vision, loader, settings, fabric):
            factor = cosine(done, epochs=passes * steps, warmup=min(10, steps), floor=0.01)
            for group in optimizer.param_groups:
                group["lr"] = LR * factor
            true = prediction.encoder.view(batch["joints"])
            loss = joint_error(*(gather(fabric, part) for part in (prediction.joints(tokens), true, batch["valid"])))
            optimizer.zero_grad()
            loss.backward()
            if fabric.world_size > 1:
                for parameter in parameters:
                    assert parameter.grad is not None
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= fabric.world_size
            optimizer.step()
            done += 1
            monitor.progress(task, done, batches)

    sampler.set_epoch(passes)
    predicted: list[np.ndarray] = []
    for tokens, _ in _encoded(vision, loader, settings, fabric):
        predicted += [clip.numpy(force=True) for clip in gather(fabric, prediction.joints(tokens).detach())]
        done += 1
        monitor.progress(task, done, batches)
    if predicted:  # without a batch training refuses to begin, and says why
        prediction.encoder.calibrate(predicted)


def _encoded(
    vision: VisionEncoder, loader: DataLoader, settings: Settings, fabric: Fabric
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield the image tokens (B, T, 1 + P, D), float32, of each batch, and the batch, on the device."""
    for share in loader:
        batch = fabric.to_device(share)
        with torch.no_grad(), fabric.autocast():
            tokens = vision(batch_pixels(batch, settings.clips).flatten(0, 1)).tokens
        yield tokens.float().unflatten(0, batch["valid"].shape), batch
