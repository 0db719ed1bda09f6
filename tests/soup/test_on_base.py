"""Soups of adapters made by hand: one adapter out, or the base with the sum of the updates."""

import json
from pathlib import Path

import pytest
import torch
from lora import PREFIX, rank_one, write_adapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from modelsoups import soup
from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.tensors import Computed
from modelsoups.cli import commands
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.library import open_all
from modelsoups.weights.merged import merged

BASE = {"q.weight": torch.zeros(2, 2), "q.bias": torch.tensor([1.0, 1.0]), "n.weight": torch.tensor([5.0])}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_file(BASE, tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Updates [[1, 0], [0, 0]] and [[0, 0], [0, 4]] (2 x 2, with alpha 2)."""
    one = write_adapter(tmp_path / "one", rank_one([1, 0], [1, 0]))
    return [one, write_adapter(tmp_path / "two", rank_one([0, 1], [0, 2]), lora_alpha=2)]


def product(folder: Path, module: str = "q") -> Tensor:
    """scale * up @ down of a written adapter."""
    config, file = json.loads((folder / "adapter_config.json").read_text()), folder / "adapter_model.safetensors"
    down, up = (load_file(file)[f"{PREFIX}{module}.lora_{x}.weight"] for x in "AB")
    return up @ down * config["lora_alpha"] / config["r"]


def test_the_mean_worked_out_by_hand(tmp_path: Path, pair: list[Path], base: Path) -> None:
    chosen = soup.uniform(pair)
    soup.mix(chosen, tmp_path / "soup")
    assert product(tmp_path / "soup").tolist() == [[0.5, 0], [0, 2]]
    config = json.loads((tmp_path / "soup" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (2, 2, {})
    assert config["target_modules"] == ["q"]
    soup.mix(chosen, tmp_path / "soup.safetensors", base=base)
    found = load_file(tmp_path / "soup.safetensors")
    assert {k: t.tolist() for k, t in found.items()} == {
        "q.weight": [[0.5, 0], [0, 2]],
        "q.bias": [1, 1],
        "n.weight": [5],
    }
    digests = []
    for file in (tmp_path / "soup" / "adapter_model.safetensors", tmp_path / "soup.safetensors"):
        with safe_open(file, "pt") as opened:
            facts = json.loads(opened.metadata()["modelsoups"])
        digests.append(facts["hashes"])
    assert digests[0] == digests[1]
    assert facts["base"]["name"] == str(base)


def test_another_dtype_keeps_what_the_bases_would_round_away(tmp_path: Path) -> None:
    """1 + 2 ** -10 needs more than the 8 bits of bfloat16; on the command line too."""
    save_file({"q.weight": torch.ones(2, 2).bfloat16()}, tmp_path / "base.safetensors")
    one, base = write_adapter(tmp_path / "one", rank_one([1, 0], [2**-10, 0])), tmp_path / "base.safetensors"
    soup.mix(soup.uniform([one]), tmp_path / "a.safetensors", base=base, dtype="float32")
    options = ["--base", str(base), "--dtype", "float32", "-o", str(tmp_path / "b.safetensors")]
    commands.main(["mix", "wise_ft", str(one), "--alpha", "0.5", *options])
    found = [load_file(tmp_path / f"{name}.safetensors")["q.weight"] for name in "ab"]
    assert [w.tolist() for w in found] == [[[1 + 2**-10, 1], [1, 1]], [[1 + 2**-11, 1], [1, 1]]]
    soup.mix(soup.uniform([one]), tmp_path / "half", dtype="float16")
    assert {t.dtype for t in load_file(tmp_path / "half" / "adapter_model.safetensors").values()} == {torch.float16}


def test_ranks_that_differ_by_layer_are_patterns_that_match_one_module(tmp_path: Path, pair: list[Path]) -> None:
    more = {**rank_one([1, 1], [1, 1]), **rank_one([1, 0], [0, 1], "x.q")}
    three = write_adapter(tmp_path / "three", more, target_modules=["q", "x.q"])
    soup.mix(soup.uniform([*pair, three]), tmp_path / "soup")
    config = json.loads((tmp_path / "soup" / "adapter_config.json").read_text())
    assert config["r"] == 3
    assert config["rank_pattern"] == config["alpha_pattern"] == {r"^x\.q": 1}
    assert config["target_modules"] == ["q", "x.q"]


def test_truncation_keeps_the_largest_and_states_its_error(tmp_path: Path, pair: list[Path]) -> None:
    """The mean has singular values 2 and 1/2, so rank 1 loses 0.5 of sqrt(4.25): 24%."""
    notes = soup.mix(soup.uniform(pair), tmp_path / "soup", rank=1)
    torch.testing.assert_close(product(tmp_path / "soup"), torch.tensor([[0.0, 0], [0, 2]]))
    told = "1 updates have a relative error of 0.24 (Frobenius norm), the largest in q (0.24)"
    assert f"truncated to rank 1: {told}" in notes
    notes = soup.mix(soup.uniform(pair), tmp_path / "exact", rank=2)
    assert not any("truncated" in note for note in notes)


def test_the_best_approximation_is_that_of_the_full_matrix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folders = []
    for n in range(3):
        tensors = {"q.lora_A.weight": torch.randn(4, 9), "q.lora_B.weight": torch.randn(7, 4)}
        folders.append(write_adapter(tmp_path / f"{n}", tensors, r=4, lora_alpha=8))
    whole = sum(product(folder).double() for folder in folders) / 3
    u, s, v = torch.linalg.svd(whole, full_matrices=False)
    soup.mix(soup.uniform(folders), tmp_path / "soup", rank=3)
    torch.testing.assert_close(product(tmp_path / "soup").double(), u[:, :3] * s[:3] @ v[:3], rtol=1e-5, atol=1e-5)


def test_every_method_works_on_a_base(tmp_path: Path, pair: list[Path], base: Path) -> None:
    """Score: -(distance of q.weight to [[1, 0], [0, 0]]); the first adapter alone is best."""

    def score(state: dict[str, Tensor]) -> float:
        return -float((state["q.weight"] - torch.tensor([[1.0, 0], [0, 0]])).norm())

    models = soup.on_base(pair, base)
    chosen = soup.greedy(models, score)
    assert chosen.ingredients == (str(pair[0]),)
    soup.mix(chosen, tmp_path / "soup")
    assert product(tmp_path / "soup").tolist() == [[1, 0], [0, 0]]
    assert soup.mixed(chosen, base=base)["q.weight"].tolist() == [[1, 0], [0, 0]]
    assert soup.mixed(soup.uniform(models), base=base)["q.weight"].tolist() == [[0.5, 0], [0, 2]]
    stock = soup.model_stock(base, models)
    expected = soup.mixed(stock, [base, *models])
    soup.mix(stock, tmp_path / "stock.safetensors", base=base)
    torch.testing.assert_close(load_file(tmp_path / "stock.safetensors"), expected)
    wise = soup.wise_ft(base, models[0], alpha=0.25)
    assert soup.mixed(wise, base=base)["q.weight"].tolist() == [[0.25, 0], [0, 0]]


def test_coefficients_by_layer_reach_their_modules(tmp_path: Path, pair: list[Path], base: Path) -> None:
    opened = soup.uniform(pair)
    chosen = Soup("learned_layers", opened.ingredients, opened.hashes, {"q": [0.25, 0.75], "n": [1.0, 0.0]})
    soup.mix(chosen, tmp_path / "soup")
    assert product(tmp_path / "soup").tolist() == [[0.25, 0], [0, 3]]
    assert soup.mixed(chosen, base=base)["q.weight"].tolist() == [[0.25, 0], [0, 3]]


@pytest.mark.parametrize(("theirs", "ours"), [("bert.", ""), ("", "bert.")])
def test_a_prefix_that_only_one_of_base_and_adapter_has(tmp_path: Path, theirs: str, ours: str) -> None:
    save_file({theirs + k: t for k, t in BASE.items()}, tmp_path / "base.safetensors")
    head = {f"{ours}q.lora_A.weight": [[1.0, 0]], f"{ours}q.lora_B.weight": [[1.0], [0]], "head.weight": [[9.0]]}
    folder = write_adapter(tmp_path / "a", head)
    notes = soup.mix(soup.uniform([folder]), tmp_path / "soup.safetensors", base=tmp_path / "base.safetensors")
    found = load_file(tmp_path / "soup.safetensors")
    assert found["bert.q.weight"].tolist() == [[1, 0], [0, 0]]
    assert found["head.weight" if ours else "bert.head.weight"].tolist() == [[9]]
    assert any("head.weight: not in the base, so taken from the adapters alone" in note for note in notes)
    assert len(found) == 4


def test_a_folder_as_base_gives_a_folder_with_its_files(tmp_path: Path, pair: list[Path]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(BASE, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "x"}')
    (folder / "vocab.txt").write_text("a")
    soup.mix(soup.uniform(pair), tmp_path / "soup", base=folder)
    names = {path.name for path in (tmp_path / "soup").iterdir()}
    assert names == {"model.safetensors", "config.json", "vocab.txt", "README.md"}
    assert load_file(tmp_path / "soup" / "model.safetensors")["q.weight"].tolist() == [[0.5, 0], [0, 2]]


def test_tied_weights_are_written_apart_and_noted(tmp_path: Path, pair: list[Path]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weight = torch.ones(2, 2)
    torch.save({"embed_tokens.weight": weight, "lm_head.weight": weight}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"model_type": "x", "tie_word_embeddings": true}')
    factors = {"embed_tokens.lora_embedding_A": [[1.0, 0]], "embed_tokens.lora_embedding_B": [[0.0], [2]]}
    adapter = write_adapter(tmp_path / "a", factors)
    notes = soup.mix(soup.uniform([adapter]), tmp_path / "soup.safetensors", base=folder)
    found = load_file(tmp_path / "soup.safetensors")
    assert found["embed_tokens.weight"].tolist() == [[1, 3], [1, 1]]
    assert found["lm_head.weight"].tolist() == [[1, 1], [1, 1]]
    assert any("are tied in the base, and embed_tokens.weight was changed" in note for note in notes)
    assert any("if the model ties its embeddings" in note for note in notes)


def test_memory_does_not_grow_with_the_base(tmp_path: Path, pair: list[Path], base: Path) -> None:
    """Weights are computed in blocks of some rows; what an adapter leaves alone stays in the base's file."""
    rows: list[int] = []
    (adapter,) = open_all(pair[:1], adapters_too=True)
    assert isinstance(adapter, Adapter)
    wide = {"q.weight": torch.zeros(2, 2), "big.weight": torch.zeros(3000, 1000)}
    save_file(wide, tmp_path / "wide.safetensors")
    (one,) = open_all([tmp_path / "wide.safetensors"])
    whole = merged(adapter, one)
    assert whole.entries["big.weight"] is one.entries["big.weight"]

    def counted(first: int, last: int) -> Tensor:
        rows.append(last - first)
        return torch.zeros(last - first, 1000, dtype=torch.float64)

    whole.entries["big.weight"] = Computed(torch.float32, (3000, 1000), counted)
    soup.mix(soup.uniform([whole]), tmp_path / "soup.safetensors", [whole])
    assert max(rows) <= 2**16 // 1000 + 2
    assert load_file(tmp_path / "soup.safetensors")["big.weight"].shape == (3000, 1000)


def test_an_adapter_that_changed_since_it_was_chosen(tmp_path: Path, pair: list[Path], base: Path) -> None:
    chosen = soup.greedy(soup.on_base(pair, base), lambda state: 0.0)
    config = pair[0] / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 1', '"lora_alpha": 3'))
    for options in ({}, {"base": base}):
        with pytest.raises(ValueError, match=r"one: not the ingredient .* its content differs"):
            soup.mix(chosen, tmp_path / f"soup{len(options)}.safetensors" if options else tmp_path / "soup", **options)


def test_an_adapter_that_changes_while_it_is_merged(pair: list[Path], base: Path) -> None:
    whole = soup.on_base(pair[:1], base)[0]
    whole.check_unchanged()
    with open(pair[0] / "adapter_model.safetensors", "ab") as file:
        file.write(b"0")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors was changed while it was being read"):
        whole.check_unchanged()


def test_what_does_not_fit_together_is_refused(tmp_path: Path, pair: list[Path], base: Path) -> None:
    def refusal(folders: list[Path], out: str = "soup", **options: object) -> str:
        with pytest.raises(ValueError, match=r".") as raised:
            soup.mix(soup.uniform(folders), tmp_path / out, **options)  # type: ignore[arg-type]
        assert not (tmp_path / out).exists()
        return str(raised.value)

    assert "is not an adapter, but others are: give --base" in refusal([pair[0], base])
    assert "an adapter is written as a folder: give a new folder's name" in refusal(pair, "soup.safetensors")
    assert "rank applies to an adapter, but base writes the full model" in refusal(pair, rank=1, base=base)
    assert "rank=0: expected at least 1" in refusal(pair, rank=0)
    assert "rank is for folders of LoRA adapters" in refusal([base], "s.safetensors", rank=1)
    wide = write_adapter(tmp_path / "wide", rank_one([1, 0, 0], [1, 0]))
    assert "the factors of q are (1, 3) and (2, 1) in" in refusal([pair[0], wide])
    assert "q does not fit: its update is (2, 3), and the base's weight (2, 2)" in refusal(
        [wide], "s.safetensors", base=base
    )
    other = write_adapter(tmp_path / "other", rank_one([1, 0], [1, 0], "z"))
    assert "its module z is not in the base" in refusal([other], "s.safetensors", base=base)
    biased = write_adapter(tmp_path / "biased", {**rank_one([1, 0], [1, 0]), "q.bias": [3.0, 3.0]}, bias="all")
    assert "one has no q.bias, but others have: give --base" in refusal([pair[0], biased])
    soup.mix(soup.uniform([pair[0], biased]), tmp_path / "both.safetensors", base=base)
    assert load_file(tmp_path / "both.safetensors")["q.bias"].tolist() == [2, 2]  # of 1, the base's, and 3
    broken = write_adapter(tmp_path / "nan", rank_one([1, float("nan")], [1, 0]))
    assert "nan: tensor base_model.model.q.lora_A.weight contains NaN" in refusal([broken])
    assert "nan: tensor base_model.model.q.lora_A.weight" in refusal([broken], "s.safetensors", base=base)
    save_file({**BASE, "q.weight": torch.zeros(2, 2).int(), "k": torch.zeros(9, 9)}, tmp_path / "int.safetensors")
    assert "is quantized ((2, 2) int32)" in refusal(pair, "s.safetensors", base=tmp_path / "int.safetensors")
    square = write_adapter(tmp_path / "sq", {**rank_one([1, 0], [1, 0]), **rank_one([1], [1, 1], "t")})
    save_file({**BASE, "t.weight": torch.zeros(1, 2)}, tmp_path / "t.safetensors")
    assert "square, and fan_in_fan_out is not the same" in refusal(
        [square], "s.safetensors", base=tmp_path / "t.safetensors"
    )


def test_adapters_of_different_bases_need_force(tmp_path: Path, pair: list[Path]) -> None:
    one = write_adapter(tmp_path / "x", rank_one([1, 0], [1, 0]), base_model_name_or_path="org/llama")
    same = write_adapter(tmp_path / "y", rank_one([1, 0], [1, 1]), base_model_name_or_path="/models/llama")
    odd = write_adapter(tmp_path / "z", rank_one([1, 0], [1, 2]), base_model_name_or_path="org/qwen")
    soup.mix(soup.uniform([one, same]), tmp_path / "same")
    with pytest.raises(ValueError, match=r"z is an adapter of org/qwen, but .*x of org/llama.*force"):
        soup.mix(soup.uniform([one, odd]), tmp_path / "soup")
    notes = soup.mix(soup.uniform([one, odd]), tmp_path / "soup", force=True)
    assert any("forced, although" in note for note in notes)


def test_methods_that_need_whole_models_ask_for_the_base(pair: list[Path], base: Path) -> None:
    for method in (lambda: soup.greedy(pair, lambda state: 0.0), lambda: soup.model_stock(base, pair)):
        with pytest.raises(
            ValueError, match=r"one: no weights in this folder but an adapter .* give the base model too"
        ):
            method()
    with pytest.raises(ValueError, match="base is for adapters"):
        soup.on_base([base], base)


def test_free_coefficients_are_not_learned_for_updates(pair: list[Path], base: Path) -> None:
    """Their sum would scale the whole model while they are learned, and the updates alone when they are mixed."""
    model = torch.nn.Module()
    model.q, model.n = torch.nn.Linear(2, 2), torch.nn.LayerNorm(1, bias=False)
    model.forward = lambda x: model.q(x)
    data = soup.Holdout(model.eval(), [(torch.eye(2), torch.tensor([0, 1]))])
    models = soup.on_base(pair, base)
    with pytest.raises(ValueError, match=r"free coefficients of adapters need not sum to 1.* use by=\"tensor\""):
        soup.learned(models, data, by="free")
    chosen = soup.learned(models, data, by="all", epochs=1)
    assert sum(chosen.coefficients["*"]) == pytest.approx(1)


def test_a_vocabulary_that_was_resized_is_noted(tmp_path: Path) -> None:
    save_file({"embed.weight": torch.zeros(2, 2), "q.weight": torch.zeros(2, 2)}, tmp_path / "base.safetensors")
    factors = {**rank_one([1, 0], [1, 0]), "embed.weight": torch.ones(3, 2)}
    folders = [write_adapter(tmp_path / f"{n}", factors, lora_alpha=n) for n in (1, 2)]
    notes = soup.mix(soup.uniform(folders), tmp_path / "soup.safetensors", base=tmp_path / "base.safetensors")
    assert load_file(tmp_path / "soup.safetensors")["embed.weight"].tolist() == [[1, 1]] * 3
    assert any("embed.weight: (3, 2) in the adapters, (2, 2) in the base" in note for note in notes)
    plain = write_adapter(tmp_path / "3", rank_one([1, 0], [1, 0]))
    with pytest.raises(ValueError, match=r"0?1: tensor embed\.weight is \(3, 2\), expected \(2, 2\): the vocabulary"):
        soup.mix(soup.uniform([folders[0], plain]), tmp_path / "s.safetensors", base=tmp_path / "base.safetensors")


def test_what_a_trainer_leaves_beside_an_adapter(tmp_path: Path, pair: list[Path]) -> None:
    for folder in pair:
        for name in ("trainer_state.json", "optimizer.pt", "tokenizer.json", "README.md"):
            (folder / name).write_text("{}")
    notes = soup.mix(soup.uniform(pair), tmp_path / "soup")
    names = {path.name for path in (tmp_path / "soup").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"}
    (left,) = [note for note in notes if note.startswith("left out of the folder")]
    assert left.endswith(": README.md, optimizer.pt, trainer_state.json")


def test_on_the_command_line(tmp_path: Path, pair: list[Path], base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = list(map(str, pair))
    commands.main(["mix", "uniform", *paths, "-o", str(tmp_path / "soup"), "--rank", "1"])
    assert "mix: truncated to rank 1" in capsys.readouterr().out
    commands.main(["mix", "weights", *paths, "--coefficients", "1", "-1", "-o", str(tmp_path / "w")])
    assert product(tmp_path / "w").tolist() == [[1, 0], [0, -4]]
    commands.main(["mix", "model_stock", *paths, "--base", str(base), "-o", str(tmp_path / "s.safetensors")])
    assert load_file(tmp_path / "s.safetensors")["n.weight"].tolist() == [5]
    with pytest.raises(SystemExit):  # a base of zeros is like nothing
        commands.main(["doctor", *paths, "--base", str(base)])
    assert "angles between updates from the initialization" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        commands.main(["mix", "greedy", *paths, "--evaluate", "os:getcwd", "-o", str(tmp_path / "g")])
    assert "give the base model too (--base" in capsys.readouterr().err
