"""Models of transformers from folders and packages; each kind of bad input is one line with the way out."""

import json
import pickle
import shutil
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_text import config, tiny, unigram, wordpiece
from tokenizers import normalizers

from modelsoups.config.models import ModelConfig
from modelsoups.models import classifier, from_transformers
from modelsoups.models.text_classifier import build

OPTIONS = ["positive", "negative"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the tiny BERT that a test may damage."""
    return shutil.copytree(tiny(home, "bert"), tmp_path / "damaged")


def refused(cfg, *words, options=OPTIONS, prompt=""):
    with pytest.raises(ValueError, match=r"^(model|data\.text)\.") as error:
        build(cfg, options, prompt, ["sentence"])
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# ---- where models come from ----


def test_a_model_comes_from_a_folder_the_home_folder_or_a_package(home, tmp_path, monkeypatch):
    place = tiny(home, "bert")
    package = tmp_path / "my_package"
    shutil.copytree(place, package / "files" / "bert")
    (package / "__init__.py").write_text("raise RuntimeError('the package was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOME", str(home))
    models = [
        build(config(name, "bert"), OPTIONS, "", ["sentence"])
        for name in (place, "~/bert", "package:my_package/files/bert")
    ]
    for model in models[1:]:
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), models[0].state_dict().values(), strict=True)
        )
    assert not models[0].training
    assert {p.dtype for p in models[0].parameters()} == {torch.float32}


def test_a_name_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "real_package").mkdir()
    (tmp_path / "real_package" / "__init__.py").touch()
    refused(config(tmp_path / "none", "bert"), "none has no config.json")
    refused(config("package:no_such_package/model", "bert"), "no Python package 'no_such_package'", "pip")
    refused(config("package:real_package/model", "bert"), "real_package/model has no config.json")
    refused(config("package:../x", "bert"), "no Python package '..'")

    def offline(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nto load the files")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    refused(config("nobody/nothing", "bert"), "couldn't connect", "no network, set model.name to a folder")


def test_the_revision_of_the_hub_is_model_tag(home, monkeypatch):
    given = []

    def remember(source, **options):
        given.append((source, options))
        raise OSError("stop")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", remember)
    cfg = config("nobody/nothing", "bert")
    cfg.tag = "refs/pr/1"
    refused(cfg, "stop")
    assert given == [("nobody/nothing", {"trust_remote_code": False, "revision": "refs/pr/1"})]
    cfg.tag = "weights.safetensors"
    refused(cfg, "model.tag=weights.safetensors", "give the model's folder as model.name")


def test_a_missing_or_old_transformers_names_the_extra(home, monkeypatch):
    cfg = config(tiny(home, "bert"), "bert")
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.57.1")
    refused(cfg, "transformers 4.57.1 is too old", "pip install 'modelsoups[text]'")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(cfg, "cannot be imported", "pip install 'modelsoups[text]'")


def test_an_image_task_refuses_a_text_model_in_one_line():
    with pytest.raises(ValueError, match="task=text, or choose open_clip, timm or iconclip"):
        classifier.build(ModelConfig("google-bert/bert-base-uncased", "transformers", "main"), 2)
    assert not classifier.has_text_tower(ModelConfig("google-bert/bert-base-uncased", "transformers", "main"))


# ---- code that comes with a model ----


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    content = json.loads((folder / "config.json").read_text())
    content["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForMaskedLM": "own.Own", "AutoTokenizer": "own.Own"}
    (folder / "config.json").write_text(json.dumps(content))
    build(config(folder, "bert"), OPTIONS, "", ["sentence"])  # the architecture is transformers' own
    content["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(content))
    refused(config(folder, "bert"), "could not load this model")
    assert not mark.exists()


def test_pickled_code_in_weights_is_not_run(folder, tmp_path):
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(mark), "w")

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    build(config(folder, "bert"), OPTIONS, "", ["sentence"])  # tensors only
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"x": Evil()}, file)
    refused(config(folder, "bert"), "could not load this model")
    assert not mark.exists()


# ---- models that do not fit ----


def test_a_model_without_a_masked_language_modelling_head_is_refused(home, tmp_path):
    model = transformers.AutoModelForMaskedLM.from_pretrained(tiny(home, "bert"))
    model.bert.save_pretrained(tmp_path)
    wordpiece().save_pretrained(tmp_path)
    refused(config(tmp_path, "bert"), "its files lack", "no masked language modelling head", "objective=head")
    assert build(config(tmp_path, "bert", objective="head"), OPTIONS, "", ["sentence"]).vocabulary == 2


def test_missing_weights_are_refused_instead_of_made_up(folder):
    state = load_file(folder / "model.safetensors")
    del state["bert.encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for objective in ("mlm", "head"):
        refused(config(folder, "bert", objective=objective), "lack 1 tensors", "layer.1.output.dense.weight", "random")


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_damaged_files_are_refused(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(damage or path.read_bytes()[:-1000])
    refused(config(folder, "bert"), "could not load this model")
    (folder / "tokenizer.json").write_bytes(damage)
    refused(config(folder, "bert"), "could not load this model")
    (folder / "config.json").write_bytes(damage)
    refused(config(folder, "bert"), "could not load this model")


def test_an_objective_that_the_architecture_does_not_have_is_refused(home):
    refused(
        config(tiny(home, "bert"), "bert", objective="seq2seq"), "a bert has no text-to-text decoder", "mlm or head"
    )
    refused(config(tiny(home, "t5"), "t5", objective="mlm"), "t5 has no masked language", "it can have seq2seq")
    refused(config(tiny(home, "t5"), "t5", objective="head"), "only an encoder", "it can have seq2seq")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_length_above_the_positions_is_refused(family, home):
    place = tiny(home, family)
    build(config(place, family, max_length=160), OPTIONS, "", ["sentence"])
    refused(config(place, family, max_length=161), "max_length=161", "positions for 160 tokens; set at most 160")


def test_t5_has_no_largest_length(home):
    model = build(config(tiny(home, "t5"), "t5", max_length=5000), OPTIONS, "", ["sentence"])
    assert from_transformers.positions(model.model) is None


def test_a_length_below_the_prompt_s_is_refused(home):
    refused(config(tiny(home, "bert"), "bert", max_length=19), "max_length=19: the prompt alone needs 20")
    build(config(tiny(home, "bert"), "bert", max_length=20), OPTIONS, "", ["sentence"])


# ---- tokenizers that do not fit ----


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    refused(config(tiny(tmp_path, "bert", vocabulary=100), "bert"), "token numbers up to", "embeddings for 100")


def test_a_tokenizer_that_knows_no_word_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = {k: v for k, v in content["model"]["vocab"].items() if v < 5}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(config(folder, "bert"), "does not know all of the option 'A) positive'")
    model = build(config(folder, "bert", objective="head"), OPTIONS, "", ["sentence"])
    with pytest.raises(ValueError, match="does not know 200 of 200 tokens of the texts"):
        model.encode([{"sentence": "the boat " * 100}])
    model.encode([{"sentence": "the boat"}])  # too few tokens to tell


def test_options_with_the_same_tokens_are_refused(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("b)", "a)")])
    tokenizer.save_pretrained(folder)
    refused(config(folder, "bert"), "'A) Film' and 'B) film' have the same tokens", options=["Film", "film"])


def test_special_tokens_in_the_prompt_are_refused(home):
    words = "special tokens"
    refused(config(tiny(home, "bert"), "bert"), words, prompt="[SEP] {sentence}")
    refused(config(tiny(home, "t5"), "t5"), words, options=["yes</s>", "no"])


def test_a_tokenizer_without_a_mask_is_refused(folder):
    tokenizer = unigram()
    tokenizer.save_pretrained(folder)
    refused(config(folder, "bert"), "its tokenizer has no mask token", "objective=head")


def test_a_head_takes_one_text_or_two(home):
    cfg = config(tiny(home, "bert"), "bert", objective="head")
    with pytest.raises(ValueError, match=r"data\.text\.fields=a, b, c: a linear head takes one text or two"):
        build(cfg, OPTIONS, "", ["a", "b", "c"])
