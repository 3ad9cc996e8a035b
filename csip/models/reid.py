"""The re-identification model of stage 2: both encoders, the prototype updater, temporal modelling and the heads.

What trains what
----------------
* f1, f2 (mean CLS token, mean projected CLS token) train the image encoder; they never see a skeleton.
* f3 comes in two forms from one and the same temporal module. The privileged form (``features[2]``, ``logits[2]``,
  ``frame_logits``) sees skeletons; the test's form (``student``, ``student_logits``, ``student_frame_logits``) does
  not. The module's weights are shared, so both train what the test runs, but only the student's form passes
  through it exactly as the test does: it is taught by distillation from ``teacher_frames``, which carry no gradient,
  and its own logits and features are there for the trainer to add cross-entropy and triplet terms to.
* With ``predict_skeletons`` f4 is what a reader says of predicted poses. No gradient of these losses reaches the prediction: it
  is fitted to the image encoder as training leaves it.
* With ``detach_visual`` nothing after the temporal module's input reaches the image encoder.
* A frozen skeleton encoder runs in evaluation mode and without gradient, whatever mode the model is in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.fusion import PrototypeFusionUpdater, SkeletonGuidedTemporalModel
from csip.models.losses import LearnableTemperature, prototype_logits
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.skeleton_prediction import SkeletonPrediction
from csip.models.vision import VisionEncoder, VisionOutput

# Of a model's state, by the start of its names: what the test branch never reads.
TRAINING_ALONE = (
    "skeleton.", "temperature.", "pfu.", "heads.", "frame_head.",
    "sgtm.project_skeleton.", "sgtm.skeleton_message.", "sgtm.distil",
)  # fmt: skip


@dataclass  # not frozen: Fabric rebuilds what a model returns field by field
class ReIDOutput:
    """What the losses need of B clips, T frames, N identities.

    Attributes
    ----------
    features : tuple of Tensor
        f1 (B, D), f2 (B, C), f3 (B, D) before the BN necks, float32; f3 with skeletons. No f3 without temporal modelling.
    logits : tuple of Tensor
        (B, N) of each feature's classifier.
    csip_logits : Tensor
        (B, N) float32, scaled similarity of f2 to the prototypes that the clip updated.
    frame_logits : Tensor or None
        (B, T, N) of the frames' vectors with skeletons; None without temporal modelling.
    student : Tensor or None
        f3 (B, D) of the branch without skeletons, which the test uses; None without distillation, like all below.
    student_logits, student_frame_logits : Tensor or None
        (B, N) and (B, T, N) of that branch, by the same necks and classifiers.
    student_frames, teacher_frames : Tensor or None
        z (B, T, D) without and with skeletons, for distillation; the latter without gradient.
    """

    features: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]
    csip_logits: Tensor
    frame_logits: Tensor | None = None
    student: Tensor | None = None
    student_logits: Tensor | None = None
    student_frame_logits: Tensor | None = None
    student_frames: Tensor | None = None
    teacher_frames: Tensor | None = None


class Head(nn.Module):
    """BN neck with a frozen bias, and a classifier without one, of its own or another head's."""

    def __init__(self, width: int, identities: int, own_classifier: bool = True) -> None:
        super().__init__()
        self.neck = nn.BatchNorm1d(width)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, identities, bias=False) if own_classifier else None
        if self.classifier is not None:
            nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, features: Tensor, shared: nn.Module | None = None) -> Tensor:
        """Return logits (..., N) of features (..., width), by the `shared` classifier where the head has none.

        Every leading entry of the features is one sample of the neck.
        """
        normed = self.neck(features.flatten(0, -2)).view(features.shape)
        classifier = shared if self.classifier is None else self.classifier
        assert classifier is not None
        return classifier(normed)


class ReIDModel(nn.Module):
    """Video re-identification with skeletons as privileged information.

    Parameters
    ----------
    vision : VisionEncoder
        Its width is D, its embed_dim C.
    skeleton : SkeletonGraphTransformer
        From stage 1; its width is C.
    identities : int
        N, the number of training identities.
    settings : Stage2Settings
        Of :class:`PrototypeFusionUpdater`, of :class:`SkeletonGuidedTemporalModel` (without ``mte`` and ``ta`` there is
        none, and a descriptor is [f1; f2]), and these. ``share_classifier``: f3 and its frames have one.
        ``train_skeleton_encoder``: otherwise it stays as it is. ``update_tokens``: what updates the prototypes, both
        modalities' CLS tokens of each frame, or all visual tokens and joints averaged over the frames. ``detach_tokens``: what
        updates the prototypes leaves the encoders alone; otherwise the image encoder learns to tell the update who the clip
        shows, rather than to be near that person's prototype. ``detach_visual``: temporal modelling leaves the image encoder
        alone. ``lambda_distill``: above 0, training also runs the branch without skeletons. ``predict_skeletons``: the test
        predicts the skeletons that it does not have, and a descriptor ends in f4, their feature.
    normalize : bool
        Cosine similarity to the prototypes, with a learnable temperature; inner product with a fixed one if False.
    tau : float
        The temperature, or its start.
    part_norm : bool
        Whether descriptors are L2-normalised, each part and then the whole.
    """

    def __init__(
        self,
        vision: VisionEncoder,
        skeleton: SkeletonGraphTransformer,
        identities: int,
        settings: Stage2Settings,
        *,
        normalize: bool = True,
        tau: float = 0.07,
        part_norm: bool = True,
    ) -> None:
        super().__init__()
        if skeleton.width != vision.embed_dim:
            raise CsipError(
                f"the skeleton encoder's width is {skeleton.width} and the image encoder's embedding "
                f"{vision.embed_dim}: take the stage-1 model that was trained with this image encoder"
            )
        self.settings = settings
        self.normalize = normalize
        self.part_norm = part_norm
        width, embed_dim = vision.width, vision.embed_dim
        self.vision = vision
        self.skeleton = skeleton.requires_grad_(settings.train_skeleton_encoder)
        self.temperature = LearnableTemperature(tau, learnable=normalize)
        self.pfu = PrototypeFusionUpdater(identities, embed_dim, settings, normalize)
        self.sgtm, self.frame_head, sizes = None, None, [width, embed_dim]
        if settings.mte or settings.ta:
            self.sgtm = SkeletonGuidedTemporalModel(width, embed_dim, settings)
            self.frame_head = Head(width, identities, own_classifier=not settings.share_classifier)
            sizes.append(width)
        self.heads = nn.ModuleList(Head(size, identities) for size in sizes)
        self.prediction = None
        if settings.predict_skeletons:
            tokens = len(vision.visual.positional_embedding)
            self.prediction = SkeletonPrediction(tokens * width, skeleton.joint_set, skeleton.frequencies, embed_dim)
            self.prediction.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ReIDModel":
        """Set the mode of everything but a frozen skeleton encoder, which stays in evaluation mode."""
        super().train(mode)
        if not self.settings.train_skeleton_encoder:
            self.skeleton.eval()
        return self

    def forward(
        self,
        images: Tensor,
        joints: Tensor,
        valid: Tensor,
        camera: Tensor | None = None,
        gather: Callable[[Tensor], Tensor] = lambda share: share,
    ) -> ReIDOutput:
        """Run both branches on training clips.

        Parameters
        ----------
        images : Tensor
            (B, T, 3, H, W), normalised.
        joints : Tensor
            (B, T, J, 3), root-centred, in the unit of the skeleton encoder's scale.
        valid : Tensor
            (B, T) bool, frames that have a skeleton.
        camera : Tensor, optional
            (B,) int64 rows of the camera embedding, -1 for none.
        gather : callable, optional
            Joins the rows of several processes: what is returned, and what BN necks see, is then the whole batch.
        """
        vision, tokens = self._see(images, camera)
        projected = vision.projected.unflatten(0, images.shape[:2])
        f1, f2 = self._mean_cls(vision, images.shape[1])
        skeleton, clip_tokens, mask = None, projected, None
        if self.pfu.update or self.sgtm is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.settings.train_skeleton_encoder):
                skeleton = self.skeleton(joints, valid)
        if self.pfu.update and skeleton is not None:
            clip_tokens, mask = self._update_tokens(tokens, projected, skeleton, valid)
        prototypes = self.pfu(clip_tokens.detach() if self.settings.detach_tokens else clip_tokens, mask)
        csip_logits = prototype_logits(f2, prototypes, self.temperature.scale(), self.normalize)
        f1, f2, csip_logits = gather(f1), gather(f2), gather(csip_logits)

        output = ReIDOutput((f1, f2), (self.heads[0](f1), self.heads[1](f2)), csip_logits)
        seen = tokens.detach() if self.settings.detach_visual else tokens
        if self.sgtm is None or self.frame_head is None:
            return output
        frames = gather(self.sgtm(seen, skeleton, valid).float())
        f3 = frames.mean(dim=1)
        output = replace(
            output,
            features=(f1, f2, f3),
            logits=(*output.logits, self.heads[2](f3)),
            frame_logits=self.frame_head(frames, self.heads[2].classifier),
        )
        if not self.settings.lambda_distill:
            return output
        student_frames = gather(self.sgtm(seen).float())
        student = student_frames.mean(dim=1)
        return replace(
            output,
            student=student,
            student_logits=self.heads[2](student),
            student_frame_logits=self.frame_head(student_frames, self.heads[2].classifier),
            student_frames=student_frames,
            teacher_frames=frames.detach(),
        )

    def embed(
        self, images: Tensor, camera: Tensor | None = None, joints: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Return the descriptors of clips by the visual branch alone; with joints by the branch that sees skeletons.

        The latter is no test of the method but its teacher: what the visual branch could know at best.

        Parameters
        ----------
        images : Tensor
            (B, T, 3, H, W), normalised; T may differ from training's.
        camera : Tensor, optional
            (B,) int64, as in :meth:`forward`.
        joints, valid : Tensor, optional
            (B, T, J, 3) and (B, T), as in :meth:`forward`.

        Returns
        -------
        Tensor
            (B, W) float32, [f1; f2; f3; f4] of D, C, D and C numbers; of norm 1 with `part_norm`. f3 is there with temporal
            modelling, f4 where skeletons are predicted: by the weight of the prediction, and given joints it is the skeleton
            encoder's feature.
        """
        vision, tokens = self._see(images, camera)
        parts = list(self._mean_cls(vision, images.shape[1]))
        skeleton = None if joints is None else self.skeleton(joints, valid)
        if self.sgtm is not None:
            parts.append(self.sgtm(tokens, skeleton, valid).float().mean(dim=1))
        if self.prediction is not None:
            parts.append(self.prediction(tokens) if skeleton is None else self.skeleton.pool(skeleton, valid))
        if self.part_norm:
            parts = [F.normalize(part, dim=1) for part in parts]
        if self.prediction is not None:
            parts[-1] = self.prediction.weight * parts[-1]
        descriptor = torch.cat(parts, dim=1)
        return F.normalize(descriptor, dim=1) if self.part_norm else descriptor

    def split_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the model's state in two: what :meth:`embed` computes with, and what training alone needs."""
        state = self.state_dict()
        training = {name: value for name, value in state.items() if name.startswith(TRAINING_ALONE)}
        return {name: value for name, value in state.items() if name not in training}, training

    def _see(self, images: Tensor, camera: Tensor | None) -> tuple[VisionOutput, Tensor]:
        """Encode every frame; also return the tokens as (B, T, 1 + P, D)."""
        batch, frames = images.shape[:2]
        cameras = None if camera is None else camera[:, None].expand(-1, frames).flatten()
        vision = self.vision(images.flatten(0, 1), cameras)
        return vision, vision.tokens.unflatten(0, (batch, frames))

    @staticmethod
    def _mean_cls(vision: VisionOutput, frames: int) -> tuple[Tensor, Tensor]:
        cls, projected = vision.cls.float(), vision.projected.float()
        return cls.unflatten(0, (-1, frames)).mean(dim=1), projected.unflatten(0, (-1, frames)).mean(dim=1)

    def _update_tokens(
        self, tokens: Tensor, projected: Tensor, skeleton: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what updates the prototypes, (B, M, C), and which of it counts, (B, M)."""
        if self.settings.update_tokens == "cls":
            visual, joints, known = projected, skeleton[:, :, 0], valid
        else:
            visual = tokens.mean(dim=1) @ self.vision.visual.proj
            weights = valid[:, :, None, None].to(skeleton.dtype)
            joints = (skeleton * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
            known = valid.any(dim=1, keepdim=True).expand(joints.shape[:2])
        always = torch.ones(visual.shape[:2], dtype=torch.bool, device=visual.device)
        return torch.cat((visual, joints.to(visual.dtype)), dim=1), torch.cat((always, known), dim=1)
