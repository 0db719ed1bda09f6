"""The configuration keys of the pre-trained encoder (section `model`)."""

from dataclasses import dataclass, field

from modelsoups.config.key import key


@dataclass
class TextModelConfig:
    """Options of text models (model.library=transformers)."""

    objective: str = key(
        "how a model classifies: masked language modelling (mlm, for BERT), text to text (seq2seq, "
        "for T5), or a new linear head on its features (head)",
        "mlm",
        choices=("mlm", "seq2seq", "head"),
    )
    pairs: str = key(
        "how a head gets two sentences: as one sequence (joined), or each encoded separately (towers), "
        "whose features are |u - v| and u * v",
        "joined",
        choices=("joined", "towers"),
    )
    pooling: str = key(
        "features of a head: the mean over tokens, or the first token", "mean", choices=("mean", "first")
    )
    max_length: int = key("largest number of tokens of an input; longer texts are cut", 128, at_least=8)


@dataclass
class ModelConfig:
    """Options of the pre-trained encoder that is fine-tuned."""

    name: str = key(
        "name of the model: any CLIP of open_clip, any backbone of timm, or for transformers a "
        "name on the hub, a folder or package:NAME/folder"
    )
    library: str = key(
        "library that contains the model; iconclip is the small CLIP of this package",
        choices=("iconclip", "open_clip", "timm", "transformers"),
        own=True,
    )
    tag: str | None = key(
        "pre-trained weights: a tag of open_clip or timm, a revision of transformers' hub, or a "
        "file; null: load none, as for imported models",
        None,
    )
    image_size: int = key("side of the input images in pixels", 224)
    normalize_features: bool = key("scale features to unit length, as CLIP does and timm's backbones do not", True)
    text: TextModelConfig = field(default_factory=TextModelConfig)
