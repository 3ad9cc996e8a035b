"""What the prediction of skeletons learns before stage 2: the joints in the tokens of an image encoder that stays as it is."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
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

    Without the latter a skeleton encoder takes the small differences between predicted bodies for none at all.

    Parameters
    ----------
    loader, sampler
        Of the training clips, as the epochs take them; ``stage2.prediction_epochs`` passes teach, one more measures.
    """
    parameters = list(prediction.project.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR)
    vision.eval()
    passes = settings.stage2.prediction_epochs
    for number in range(passes + 1):
        sampler.set_epoch(number)
        seen = []
        for step, share in enumerate(loader):
            batch = fabric.to_device(share)
            valid = batch["valid"]
            with torch.no_grad(), fabric.autocast():
                images = batch_pixels(batch, settings.clips).flatten(0, 1)
                tokens = vision(images).tokens.unflatten(0, valid.shape)
            joints = gather(fabric, prediction.joints(tokens.float()))
            if number == passes:
                seen += [clip.numpy(force=True) for clip in joints]
                continue
            factor = cosine(
                number * len(loader) + step, epochs=passes * len(loader), warmup=min(10, len(loader)), floor=0.01
            )
            for group in optimizer.param_groups:
                group["lr"] = LR * factor
            true = prediction.encoder.view(batch["joints"])
            loss = joint_error(joints, gather(fabric, true), gather(fabric, valid))
            optimizer.zero_grad()
            loss.backward()
            if fabric.world_size > 1:
                for parameter in parameters:
                    assert parameter.grad is not None
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= fabric.world_size
            optimizer.step()
        if number < passes:
            monitor.progress("teaching the prediction of skeletons", number + 1, passes)
    prediction.encoder.calibrate(seen)
