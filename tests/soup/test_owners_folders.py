"""The soup of two copies of a folder gives, under the loader of the library that wrote it, the same bits."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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


def test_transformers_with_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    bert(tmp_path / "m")
    found = []
    for folder in (tmp_path / "m", soup_of_copies(tmp_path / "m")):
        tokens = AutoTokenizer.from_pretrained(folder)("hello soup", return_tensors="pt")
        found.append(AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state)
    assert torch.equal(*found)


def test_transformers_with_custom_code(tmp_path: Path) -> None:
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


def test_timm(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit", num_classes=5)
    timm.models.save_for_hf(model, tmp_path / "timm", model_config={"num_classes": 5})
    x = torch.randn(2, 3, 160, 160)
    found = []
    for folder in (tmp_path / "timm", soup_of_copies(tmp_path / "timm")):
        found.append(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(x))
    assert torch.equal(*found)


def test_open_clip(tmp_path: Path) -> None:
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

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


def sentence_transformer(folder: Path, base: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    models = pytest.importorskip("sentence_transformers.models")
    bert(base)
    modules = [models.Transformer(str(base)), models.Pooling(16), models.Dense(16, 8), models.Normalize()]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder))


def test_sentence_transformers_with_a_dense_module(tmp_path: Path) -> None:
    sentence_transformer(tmp_path / "st", tmp_path / "bert")
    from sentence_transformers import SentenceTransformer

    folders = (tmp_path / "st", soup_of_copies(tmp_path / "st"))
    found = [SentenceTransformer(str(f), device="cpu").encode(["hello world", "soup"]) for f in folders]
    np.testing.assert_array_equal(*found)


def test_setfit(tmp_path: Path) -> None:
    setfit = pytest.importorskip("setfit")
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    sentence_transformer(tmp_path / "st", tmp_path / "bert")
    body = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    head = LogisticRegression().fit(body.encode(["good", "bad", "soup", "world"]), [1, 0, 1, 0])
    setfit.SetFitModel(model_body=body, model_head=head, labels=["a", "b"]).save_pretrained(str(tmp_path / "setfit"))
    folders = (tmp_path / "setfit", soup_of_copies(tmp_path / "setfit"))
    found = [setfit.SetFitModel.from_pretrained(str(f)).predict_proba(["good world"]) for f in folders]
    np.testing.assert_array_equal(*map(np.asarray, found))


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "100KB"}])
def test_a_model_and_a_pipeline_of_diffusers(tmp_path: Path, shards: dict[str, str]) -> None:
    diffusers = pytest.importorskip("diffusers")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    down, up = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    shape = {"down_block_types": down, "up_block_types": up, "block_out_channels": (32, 32), "layers_per_block": 1}
    unet = diffusers.UNet2DModel(sample_size=8, **shape).eval()
    x = torch.randn(1, 3, 8, 8)
    unet.save_pretrained(tmp_path / "unet", **shards)
    loaded = diffusers.UNet2DModel.from_pretrained(soup_of_copies(tmp_path / "unet"))
    assert torch.equal(unet(x, 3).sample, loaded(x, 3).sample)
    pipeline = diffusers.LDMPipeline(diffusers.VQModel(), unet, diffusers.DDIMScheduler())
    pipeline.save_pretrained(tmp_path / "pipeline", **shards)
    loaded = diffusers.DiffusionPipeline.from_pretrained(soup_of_copies(tmp_path / "pipeline"))
    assert torch.equal(unet(x, 3).sample, loaded.unet(x, 3).sample)
    assert torch.equal(pipeline.vqvae(x).sample, loaded.vqvae(x).sample)
