"""Position embeddings of vision transformers at image sizes other than the model's own.

They are resized by bicubic interpolation with antialiasing, as in timm (resample_abs_pos_embed) and
open_clip (resize_pos_embed). Here it is a matrix product in each forward pass: the weights keep the
model's own grid, so models of several image sizes can be averaged, and the gradient is the same in
every run, which that of PyTorch's interpolation on a GPU is not.

Shape letters: P positions (leading tokens, then the patches by rows), D features, O and N patches of
the model's own and of the new grid.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


@dataclass
class PositionGrid:
    """The position embeddings of a vision transformer whose own images have `own` pixels a side.

    parameter: their name in the encoder; patch: side of a patch in pixels; leading: number of
    embeddings before those of the patches, such as the class token's.
    """

    parameter: str
    own: int
    patch: int
    leading: int
    _weights: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def nearest(self, side: int) -> int:
        """Return the multiple of the patch, at least one patch, that is nearest to `side` pixels."""
        return max(1, int(side / self.patch + 0.5)) * self.patch

    def prepare(self, side: int, device: torch.device) -> Tensor:
        """Return the interpolation weights, (N, O), for images of `side` pixels; made once a device."""
        key = (side, str(device))
        if key not in self._weights:
            with torch.inference_mode(False), torch.no_grad():
                old, new = self.own // self.patch, side // self.patch
                each_O1OO = torch.eye(old * old).view(-1, 1, old, old)
                spread = F.interpolate(each_O1OO, (new, new), mode="bicubic", antialias=True, align_corners=False)
                self._weights[key] = spread.view(old * old, new * new).T.contiguous().to(device)
        return self._weights[key]

    def resized(self, positions: Tensor, side: int) -> Tensor:
        """Return position embeddings, (..., P, D), for images of `side` pixels."""
        weights_NO = self.prepare(side, positions.device)
        leading, patches = positions.split([self.leading, weights_NO.shape[1]], dim=-2)
        with torch.autocast(positions.device.type, enabled=False):
            return torch.cat([leading, weights_NO.to(patches.dtype) @ patches], dim=-2)

    def encode(self, encoder: nn.Module, images_BCHW: Tensor) -> Tensor:
        """Return the encoder's features of images of any prepared size."""
        side = images_BCHW.shape[-1]
        if side == self.own:
            return encoder(images_BCHW)
        positions = self.resized(getattr(encoder, self.parameter), side)
        return functional_call(encoder, {self.parameter: positions}, (images_BCHW,))
