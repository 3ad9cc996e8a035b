"""The skeleton as the images tell it, which stands in for the true one at the test."""

from copy import deepcopy

from torch import Tensor, nn

from csip.models.skeleton_encoder import SkeletonGraphTransformer


class SkeletonPrediction(nn.Module):
    """Predict the joints of each frame from the image encoder's tokens of it, and encode them as stage 1 encodes skeletons.

    Joints are a linear function of the tokens: what is to be learnt is where the image encoder keeps the pose, not how to
    see one. True joints alone teach it; identities teach the skeleton encoder behind it, a copy of stage 1's own, which gets
    used to predicted joints: they vary less than true ones.

    Parameters
    ----------
    tokens, width : int
        1 + P tokens a frame, of width D.
    encoder : SkeletonGraphTransformer
        Of stage 1; copied.
    """

    def __init__(self, tokens: int, width: int, encoder: SkeletonGraphTransformer) -> None:
        super().__init__()
        self.project = nn.Linear(tokens * width, 3 * encoder.joints)
        nn.init.zeros_(self.project.weight)
        self.encoder = deepcopy(encoder).requires_grad_(True)

    def joints(self, visual: Tensor) -> Tensor:
        """Return joints (B, T, J, 3), metres, root-centred, as the encoder views them, of tokens (B, T, 1 + P, D)."""
        return self.project(visual.flatten(2)).float().unflatten(-1, (-1, 3))

    def forward(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the joints, and the encoder's tokens of them (B, T, 1 + J, C), whose gradient ends at the joints."""
        joints = self.joints(visual)
        return joints, self.encoder(joints.detach())
