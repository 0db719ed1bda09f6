"""The configuration keys of the data sets (section `data`)."""

from dataclasses import dataclass, field

from modelsoups.config.key import key


@dataclass
class SourcesConfig:
    """Paths of single ImageNet sets; a set whose path is null is looked for in data.root."""

    train: str | None = key("ImageNet's training images, from which the hold-out is also taken", None)
    val: str | None = key("ImageNet's validation images", None)
    v2: str | None = key("ImageNetV2, matched frequency", None)
    r: str | None = key("ImageNet-R", None)
    sketch: str | None = key("ImageNet-Sketch", None)
    objectnet: str | None = key("ObjectNet (its licence forbids training or tuning on it)", None)
    a: str | None = key("ImageNet-A", None)
    v2_top_images: str | None = key("ImageNetV2, top images", None)
    v2_threshold: str | None = key("ImageNetV2, threshold 0.7", None)
    real: str | None = key("real.json with the ReaL labels; null: the copy in timm", None)
    multilabel: str | None = key("human_accuracy_v3.0.0.json with several labels per image; null: not used", None)
    hard: str | None = key("ImageNet-Hard: the folder with its parquet files (MIT)", None)
    w: str | None = key("ImageNet-W: the validation images with its watermark, in class folders (CC BY-NC 4.0)", None)
    c: str | None = key(
        "ImageNet-C: the folder with fog/3/ and others, for the sets c_fog_3 and others (CC BY 4.0)", None
    )
    d: str | None = key("ImageNet-D: the folder with background/, texture/ and material/ (MIT)", None)
    x: str | None = key("ImageNet-X: the folder imagenet_x/annotations of its repository (CC BY-NC 4.0)", None)


@dataclass
class TextDataConfig:
    """Options of text data sets (data.library=text): files, columns, labels, prompt and score."""

    phrases: str = key(
        "task of the generated texts (data.library=phrases): is a sentence grammatical, or do two mean the same?",
        "acceptability",
        choices=("acceptability", "paraphrase"),
    )
    folders: list[str] = key(
        "possible names of the data set's folder in data.root, such as MRPC; data.root itself if it has none of them",
        [],
    )
    files: dict[str, str] = key(
        "files of single sets, {set: path in that folder}; other sets are found by name, such as train.tsv", {}
    )
    columns: list[str] = key("names of the columns, for files without a header line", [])
    fields: dict[str, list[str]] = key("columns of the texts, {name in the prompt: possible names of its column}", {})
    label: list[str] = key("possible names of the column of the labels", ["label"])
    labels: dict[str, str] = key(
        "labels in the files and their texts as options of the prompt, {label: text}, in the order "
        "of the options; several labels may have one text",
        {},
    )
    quotes: bool | None = key("whether quotation marks enclose columns; null: in .csv files only", None)
    prompt: str = key("the input of the model, with the names of data.text.fields in braces", "")
    score: str = key(
        "score of a model: accuracy, the mean of accuracy and F1 of the first option, or Matthews correlation",
        "accuracy",
        choices=("accuracy", "accuracy_f1", "matthews"),
    )
    examples: dict[str, int] = key("official numbers of examples, {set: number}; see data.check_counts", {})
    official: bool = key(
        "count texts that are in two sets instead of refusing them, as GLUE's official sets need", False
    )


@dataclass
class DataConfig:
    """Options of the data sets and of their conversion to shards."""

    name: str = key("name of the data in reports and model cards")
    library: str = key(
        "source of the data sets: rendered icons or generated texts (the miniatures), the files of ImageNet, CIFAR-10,"
        " FMoW, iWildCam, DTD, Food-101, SUN397, Stanford Cars or CIFAR-100, one folder of images per class (of each"
        " set, or of each domain), or tables of texts",
        choices=(
            *("iconnet", "phrases", "imagenet", "cifar", "fmow", "iwildcam", "dtd", "food101", "sun397", "cars"),
            *("cifar100", "folders", "domains", "text"),
        ),
        own=True,
    )
    dir: str = key("folder that `prepare` writes the data sets to")
    seed: int = key("seed of the miniatures' icons and texts (data.library=iconnet or phrases)", 0, at_least=0)
    part: list[int] | None = key(
        "[i,n]: every n-th class of IconNet from the i-th on (from 0), so that n data sets share no class (appendix E);"
        " null: all classes",
        None,
    )
    train: str = key("name of the training set", "train")
    holdout: str = key("name of the held-out set on which soups are chosen", "holdout")
    test: str = key("name of the in-distribution test set", "test")
    shifts: list[str] = key("names of the test sets under distribution shift; reports give their mean accuracy", [])
    extra: list[str] = key("names of more test sets, excluded from the mean over data.shifts", [])
    domains: list[str] = key("folders in data.root whose images are trained on (data.library=domains)", [])
    root: str | None = key("folder of the downloaded data sets, packed or unpacked", None)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    text: TextDataConfig = field(default_factory=TextDataConfig)
    holdout_per_class: int = key("images of each class that move from the training set to the hold-out", 26, at_least=1)
    choose_on: str = key(
        "examples that text soups are chosen on: a part of the training set (heldout), or those of "
        "the test set itself (validation)",
        "heldout",
        choices=("heldout", "validation"),
    )
    holdout_fraction: float = key(
        "part of each training class that becomes the hold-out (domains, and texts without a hold-out file)",
        0.2,
    )
    test_fraction: float = key(
        "part of each class that moves from the training domains to the test set (data.library=domains)", 0.1
    )
    limit: int | None = key(
        "number of training examples to use, chosen by a hash (texts, CIFAR-10, domains); null: all", None, at_least=1
    )
    holdout_file: str | None = key(
        "the authors' index file imagenet_98_idxs.npy, required for their models; null: split by a hash of file names",
        None,
    )
    train_resize: int | None = key(
        "shorter side of the training images in pixels, for smaller and faster shards; null: original size",
        None,
        at_least=32,
    )
    train_format: str = key(
        "how training images are stored: as image files (encoded), or decoded (raw), which needs data.train_resize,"
        " takes about 260 kB an image at 256 pixels, and loads two to four times as fast",
        "encoded",
        choices=("encoded", "raw"),
    )
    check_counts: bool = key("stop with an error if examples of a set are missing", True)
    score: str = key(
        "score of a model on images: top-1 accuracy, the mean F1 of all classes, or the accuracy of the group of"
        " images with the lowest accuracy, such as FMoW's worst region; texts: see data.text.score",
        "accuracy",
        choices=("accuracy", "macro_f1", "worst_group"),
    )
    verify: bool = key("check that every image can be decoded, which takes hours of CPU time on ImageNet", False)
    shard_images: int = key("images in a shard", 1000, at_least=1)
    workers: int | None = key("number of processes of `prepare`; null: one for each core", None, at_least=1)
