"""The soup of two copies of a folder gives, under the loader of the library that wrote it, the same bits."""

import json
import logging
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import owners
import pytest
import torch
from owners import row

from modelsoups import soup

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "soup", "good", "bad"]
CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class TinyConfig(PretrainedConfig):
    model_type = "tinyx"

class Tiny(PreTrainedModel):
    config_class = TinyConfig
    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, 2)
        self.post_init()
    def forward(self, x):
        return self.layer(x)
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def soup_of_copies(folder: Path) -> Path:
    """The soup of a folder and its copy; besides its README.md, nothing is left out."""
    shutil.copytree(folder, f"{folder}-copy")
    out = Path(f"{folder}-soup")
    notes = soup.mix(soup.uniform([folder, Path(f"{folder}-copy")]), out)
    assert [note for note in notes if "left out" in note and not note.endswith(": README.md")] == []
    return out


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    (folder / "words.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "words.txt")).save_pretrained(folder)


@row(
    "folder of transformers",
    "`model.safetensors`, `pytorch_model.bin`, whole or as shards with an index; tokenizer and configuration",
    "folder",
    "`from_pretrained`",
    "a `config.json` that changes what the model computes",
)
def transformers(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    bert(tmp_path / "m")
    found = []
    for folder in (tmp_path / "m", soup_of_copies(tmp_path / "m")):
        tokens = AutoTokenizer.from_pretrained(folder)("hello soup", return_tensors="pt")
        found.append(AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state)
    assert torch.equal(*found)
    AutoModel.from_pretrained(tmp_path / "m").save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded = AutoModel.from_pretrained(soup_of_copies(tmp_path / "shards")).eval()
    assert torch.equal(loaded(**tokens).last_hidden_state, found[0])
    other = tmp_path / "m-copy" / "config.json"
    other.write_text(other.read_text().replace('"gelu"', '"relu"'))
    with pytest.raises(ValueError, match='hidden_act "relu" in its configuration'):
        soup.mix(soup.uniform([tmp_path / "m", tmp_path / "m-copy"]), tmp_path / "none")


@row(
    "`checkpoint-*` of its Trainer",
    "as transformers; the run's state, results and optimizer are left out",
    "folder",
    "`from_pretrained`",
    "",
)
def trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=9, **shape))
    rows = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor(n % 2)} for n in range(4)]
    options = {"max_steps": 2, "save_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    Trainer(model, TrainingArguments(str(tmp_path / "run"), **options), train_dataset=rows).train()
    saved = [tmp_path / "run" / f"checkpoint-{step}" for step in (1, 2)]
    notes = soup.mix(soup.uniform(saved), tmp_path / "soup")
    (left,) = [note for note in notes if note.startswith("left out of the folder")]
    for name in ("trainer_state.json", "optimizer.pt", "training_args.bin"):
        assert name in left
        assert (saved[0] / name).exists()
        assert not (tmp_path / "soup" / name).exists()
    mean = BertForSequenceClassification.from_pretrained(tmp_path / "soup").state_dict()
    one, two = (BertForSequenceClassification.from_pretrained(folder).state_dict() for folder in saved)
    for key, tensor in mean.items():
        assert torch.equal(tensor, ((one[key].double() + two[key].double()) / 2).to(tensor.dtype))


@row(
    "with custom code (`auto_map`)",
    "as transformers; the code is copied and never run",
    "folder",
    "`from_pretrained(..., trust_remote_code=True)`",
    "",
)
def custom_code(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModel

    folder = tmp_path / "custom"
    folder.mkdir()
    state = {"layer.weight": torch.randn(2, 3), "layer.bias": torch.randn(2)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    classes = {"AutoConfig": "modeling_tinyx.TinyConfig", "AutoModel": "modeling_tinyx.Tiny"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tinyx", "auto_map": classes}))
    (folder / "modeling_tinyx.py").write_text(CODE)
    x = torch.randn(4, 3)
    folders = (folder, soup_of_copies(folder))
    assert torch.equal(*[AutoModel.from_pretrained(f, trust_remote_code=True)(x) for f in folders])


@row("folder of timm", "as transformers", "folder", '`create_model("local-dir:...")`', "")
def timm(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit", num_classes=5)
    timm.models.save_for_hf(model, tmp_path / "timm", model_config={"num_classes": 5})
    x = torch.randn(2, 3, 160, 160)
    found = []
    for folder in (tmp_path / "timm", soup_of_copies(tmp_path / "timm")):
        found.append(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(x))
    assert torch.equal(*found)


@row(
    "folder of open_clip, or of `modelsoups export`",
    "`open_clip_model.safetensors`, `open_clip_pytorch_model.bin`, and `head.safetensors` beside it",
    "folder",
    '`create_model_from_pretrained("local-dir:...")`',
    "several models into one file",
)
def open_clip(tmp_path: Path) -> None:
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf
    from safetensors.torch import save_file

    from modelsoups.cli.export import _load_clip

    tower = {"width": 32, "layers": 2}
    vision = {"image_size": 32, "patch_size": 16, "head_width": 16, **tower}
    text = {"context_length": 8, "vocab_size": 64, "heads": 2, **tower}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    folder = tmp_path / "clip"
    folder.mkdir()
    clip = open_clip.CLIP(**config)
    open_clip.model.set_model_preprocess_cfg(clip, {"mean": [0.5] * 3, "std": [0.5] * 3})
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer.json").write_text("{}"))
    save_for_hf(clip, tokenizer, config, folder, safe_serialization=True)
    x = torch.randn(2, 3, 32, 32)
    found = []
    for place in (folder, soup_of_copies(folder)):
        model, _ = open_clip.create_model_from_pretrained(f"local-dir:{place}")
        found.append(model.eval().encode_image(x))
    assert torch.equal(*found)
    export = shutil.copytree(folder, tmp_path / "export")
    save_file({"weight": torch.randn(3, 16), "bias": torch.randn(3)}, export / "head.safetensors")
    found = [_load_clip(place, True)(x) for place in (export, soup_of_copies(export))]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="has several models"):
        soup.mix(soup.uniform([export]), tmp_path / "soup.safetensors")


def sentence_transformer(folder: Path, base: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    bert(base)
    modules = [models.Transformer(str(base)), models.Pooling(16), models.Dense(16, 8), models.Normalize()]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder))


@row(
    "sentence-transformers",
    "also the weights of the subfolders that `modules.json` or `router_config.json` names",
    "folder",
    "`SentenceTransformer`",
    "subfolders whose weights have an unknown name",
)
def sentence_transformers(tmp_path: Path) -> None:
    sentence_transformer(tmp_path / "st", tmp_path / "bert")
    from sentence_transformers import SentenceTransformer

    folders = (tmp_path / "st", soup_of_copies(tmp_path / "st"))
    found = [SentenceTransformer(str(f), device="cpu").encode(["hello world", "soup"]) for f in folders]
    np.testing.assert_array_equal(*found)


@row(
    "SetFit",
    "as sentence-transformers; `model_head.pkl` is copied if it is the same in all, else left out",
    "folder",
    "`SetFitModel.from_pretrained`",
    "",
)
def setfit(tmp_path: Path) -> None:
    library = pytest.importorskip("setfit")
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    sentence_transformer(tmp_path / "st", tmp_path / "bert")
    body = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    head = LogisticRegression().fit(body.encode(["good", "bad", "soup", "world"]), [1, 0, 1, 0])
    library.SetFitModel(model_body=body, model_head=head, labels=["a", "b"]).save_pretrained(str(tmp_path / "setfit"))
    folders = (tmp_path / "setfit", soup_of_copies(tmp_path / "setfit"))
    found = [library.SetFitModel.from_pretrained(str(f)).predict_proba(["good world"]) for f in folders]
    np.testing.assert_array_equal(*map(np.asarray, found))


@row(
    "diffusers: a model",
    "`diffusion_pytorch_model.safetensors`, `.bin`, whole or as shards",
    "folder",
    "`from_pretrained`",
    "",
)
def diffusers_model(tmp_path: Path) -> None:
    library, unet = tiny_unet()
    x = torch.randn(1, 3, 8, 8)
    for name, shards in SHARDS.items():
        unet.save_pretrained(tmp_path / name, **shards)
        loaded = library.UNet2DModel.from_pretrained(soup_of_copies(tmp_path / name))
        assert torch.equal(unet(x, 3).sample, loaded(x, 3).sample)


@row(
    "diffusers: a pipeline",
    "the weights of all components of `model_index.json`",
    "folder",
    "`DiffusionPipeline.from_pretrained`",
    "a component whose weights have another name, such as `diffusion_pytorch_model.fp16.safetensors`",
)
def diffusers_pipeline(tmp_path: Path) -> None:
    library, unet = tiny_unet()
    x = torch.randn(1, 3, 8, 8)
    pipeline = library.LDMPipeline(library.VQModel(), unet, library.DDIMScheduler())
    for name, shards in SHARDS.items():
        pipeline.save_pretrained(tmp_path / name, **shards)
        loaded = library.DiffusionPipeline.from_pretrained(soup_of_copies(tmp_path / name))
        assert torch.equal(unet(x, 3).sample, loaded.unet(x, 3).sample)
        assert torch.equal(pipeline.vqvae(x).sample, loaded.vqvae(x).sample)
    weights = tmp_path / "whole" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(ValueError, match="no weights with a known name"):
        soup.uniform([tmp_path / "whole"])


SHARDS: dict[str, dict[str, str]] = {"whole": {}, "shards": {"max_shard_size": "100KB"}}


def tiny_unet() -> tuple[ModuleType, torch.nn.Module]:
    library = pytest.importorskip("diffusers")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    down, up = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    shape = {"down_block_types": down, "up_block_types": up, "block_out_channels": (32, 32), "layers_per_block": 1}
    return library, library.UNet2DModel(sample_size=8, **shape).eval()


@owners.of(__name__)
def test_the_soup_of_copies_is_the_model(each: owners.Row, tmp_path: Path) -> None:
    each.check(tmp_path)
