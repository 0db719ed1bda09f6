"""The classifier that is fine-tuned: a pre-trained encoder and a linear head.

model.library selects the encoder's library. To add a library, write a module with `load_encoder`
(and `load_clip`, if it has text towers) and add a line to LIBRARIES. A file as model.tag
(ViT-B-32.pt, weights.safetensors) is read without executing pickled code. If model.tag is null, the
encoder has random weights, and a checkpoint must supply all of them.

Shape letters: B images, C classes or channels, D features, H height, W width, T templates.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.config import registry
from modelsoups.config.models import ModelConfig
from modelsoups.models.pretrained import Clip, Encoder

LIBRARIES = {  # model.library -> its module, imported on use: open_clip and timm take seconds
    "iconclip": "modelsoups.models.iconclip:",
    "open_clip": "modelsoups.models.from_open_clip:",
    "timm": "modelsoups.models.from_timm:",
    "transformers": "modelsoups.models.from_transformers:",  # refuses images
}


class Normalisation:
    """Normalises uint8 pixels with each channel's mean and std from the encoder's pre-training."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = tuple(mean), tuple(std)
        # Copied to a device once: a copy for each batch would wait for the GPU.
        self._on: dict[torch.device, Tensor] = {}

    def __call__(self, pixels_BCHW: Tensor, device: torch.device) -> Tensor:
        """Return the normalised pixels, (B, C, H, W), in float32 on the device."""
        if device not in self._on:
            with torch.inference_mode(False):
                both_2C = torch.tensor([self.mean, self.std], device=device)
                self._on[device] = both_2C[:, :, None, None]
        mean_C11, std_C11 = self._on[device]
        return (pixels_BCHW.to(device).float().div_(255) - mean_C11) / std_C11


class Classifier(nn.Module):
    """A pre-trained image encoder, optional L2 normalisation of its features, and a linear head."""

    def __init__(self, encoder: Encoder, classes: int, image_size: int, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder.module
        self.head = nn.Linear(encoder.features, classes)
        self.image_size, self.normalize = image_size, normalize
        self.mean, self.std = encoder.mean, encoder.std
        self.grid, self.convolutional = encoder.grid, encoder.convolutional
        self.normalisation = Normalisation(encoder.mean, encoder.std)
        self.told: set[tuple[str, int]] = set()  # sizes that `adapt` has printed

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Return the features, (B, D), of normalised images, as unit vectors if self.normalize."""
        features_BD = self.grid.encode(self.encoder, images_BCHW) if self.grid else self.encoder(images_BCHW)
        if isinstance(features_BD, tuple):  # CoCa's tower returns its tokens too
            features_BD = features_BD[0]
        return F.normalize(features_BD, dim=-1) if self.normalize else features_BD

    def adapt(self, side: int, key: str) -> int:
        """Prepare the model for images of `side` pixels; return the size that it takes, printed if another.

        A vision transformer takes the nearest multiple of its patch. key: the configuration key of
        the size. Raises ValueError if the model takes images of its own size alone.
        """
        if side == self.image_size or self.convolutional:
            return side
        if self.grid is None:
            raise ValueError(
                f"{key}={side}: this model takes images of {self.image_size} pixels alone; set {key}=null, or choose "
                "a vision transformer or a convolutional network"
            )
        taken = self.grid.nearest(side)
        if taken != side and (key, side) not in self.told:
            self.told.add((key, side))
            print(f"{key}={side}: taken as {taken}, the nearest multiple of the model's patches of {self.grid.patch}")
        self.grid.prepare(taken, self.head.weight.device)
        return taken

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (images, classes), of normalised images.

        The head is excluded from autocast, because large logits would lose precision in bf16.
        """
        features_BD = self.features(images_BCHW)
        if features_BD.is_meta:  # only shapes are computed, and autocast does not exist there
            return self.head(features_BD)
        with torch.autocast(features_BD.device.type, enabled=False):
            return self.head(features_BD.to(self.head.weight.dtype))


def build(model: ModelConfig, num_classes: int) -> Classifier:
    """Return a classifier: a pre-trained encoder, and a head with PyTorch's default initialization.

    Raises ValueError if model.name, model.tag or model.image_size is wrong.
    """
    encoder: Encoder = registry.find(LIBRARIES, model.library, "model.library").load_encoder(model)
    side = encoder.image_size
    if side not in (None, model.image_size):
        raise ValueError(
            f"model.image_size={model.image_size}: {model.name} takes images of {side} pixels; "
            f"set model.image_size={side}, or choose a model for {model.image_size}-pixel images"
        )
    return Classifier(encoder, num_classes, model.image_size, model.normalize_features)


def build_on_device(model: ModelConfig, num_classes: int) -> Classifier:
    """Return the classifier of `build` in evaluation mode, on the GPU if there is one.

    A mostly convolutional model is converted to channels-last, which is faster.
    """
    built = build(model, num_classes).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return built.to(memory_format=torch.channels_last) if mostly_convolutional(built) else built


def mostly_convolutional(model: nn.Module) -> bool:
    """Return whether Conv2d kernels are more than half of the model's parameters."""
    kernels = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    return 2 * kernels > sum(p.numel() for p in model.parameters())


def has_text_tower(model: ModelConfig) -> bool:
    """Return whether model.library has text towers, from which a zero-shot head can be made."""
    return hasattr(registry.find(LIBRARIES, model.library, "model.library"), "load_clip")


def load_clip(model: ModelConfig) -> Clip:
    """Return a CLIP with both towers; ValueError if there is no text tower or model.tag is null."""
    library = registry.find(LIBRARIES, model.library, "model.library")
    if not has_text_tower(model):
        way_out = "use a CLIP, or heads.init=lp"
        raise ValueError(f"model.library={model.library} has no text tower; {way_out}")
    return library.load_clip(model)


@torch.inference_mode()
def zeroshot_weights(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return the weights, (classes, features), of the zero-shot head; its bias is zero.

    Unit text features are averaged over the templates of a class, normalised again and multiplied
    by the logit scale, as in OpenAI's CLIP notebook and open_clip's zero-shot classifier.
    """
    rows = []
    for name in classes:  # one at a time: names may repeat, and memory stays small
        text = clip.tokenize([template.format(name) for template in templates])
        features_TD = F.normalize(clip.model.encode_text(text), dim=-1)
        rows.append(F.normalize(features_TD.mean(dim=0), dim=-1))
    return torch.stack(rows) * clip.model.logit_scale.exp()


def state_of(model: Classifier) -> dict[str, Tensor]:
    """Return a model's state dict for saving: on the CPU, floats as float32, integers unchanged."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def normalise(model: Classifier, pixels_BCHW: Tensor) -> Tensor:
    """Return uint8 pixels normalised as the model's encoder expects, on the model's device."""
    return model.normalisation(pixels_BCHW, model.head.weight.device)
