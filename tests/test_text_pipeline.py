"""A task laid out as CoLA, from its TSVs to Table 5: with BERT, T5 and a linear head; killed and resumed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from pico import kill_when, modelsoups
from text_runs import COUNTS, options, write
from tiny_text import tiny

from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.stages import evaluate, finetune, heads, prepare, sweep


def run(home: Path, *args: str, **more) -> str:
    done = modelsoups(home, *args, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder in which a run of two models is complete."""
    made = tmp_path_factory.mktemp("glue")
    write(made)
    run(made, *options(made))
    return made


def test_one_command_makes_the_rows_of_table_5(home):
    lines = [json.loads(line) for line in (home / "results/results.jsonl").read_text().splitlines()]
    about = lines[0]["experiment"]
    assert about["score"]["name"] == "Matthews correlation"
    rows = {line["row"]: line for line in lines if line.get("dataset") == "validation"}
    assert {"initialization", "best", "uniform", "greedy", "ensemble", "best_validation", "greedy_validation"} <= set(
        rows
    )
    assert all(row["n"] == COUNTS["dev"] and row["low"] <= row["accuracy"] <= row["high"] for row in rows.values())
    assert rows["greedy_validation"]["accuracy"] >= rows["best_validation"]["accuracy"] >= rows["best"]["accuracy"]
    table = (home / "results/table_5.md").read_text()
    assert "Greedy soup" in table
    assert "not in the paper" in table
    page = (home / "results/index.html").read_text()
    assert "Table 5" in page
    assert not any(text in page for text in _sentences(home))  # no text of a data set stands in a report


def _sentences(home: Path) -> list[str]:
    return [line.split("\t")[3] for line in (home / "GLUE/CoLA/dev.tsv").read_text().splitlines()]


def test_the_same_command_again_changes_nothing(home):
    before = (home / "results/results.jsonl").read_bytes()
    said = run(home, *options(home))
    assert "finetune: complete, 2 of 2" in said
    assert (home / "results/results.jsonl").read_bytes() == before


def test_killed_and_resumed_it_ends_bit_identical(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run", ignore=shutil.ignore_patterns("ingredients", "soups", "logits"))
    shutil.copytree(home / "GLUE", tmp_path / "GLUE")
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copy(home / "two.yaml", tmp_path)
    arguments = ["finetune", *options(tmp_path, f"sweep.search={tmp_path / 'two.yaml'}"), "ingredient=0"]
    assert kill_when(tmp_path, arguments, "run/ingredients/000/checkpoint.pt")
    folder = tmp_path / "run/ingredients/000"
    assert not (folder / "manifest.json").exists()
    run(tmp_path, *arguments)
    assert (folder / "model.safetensors").read_bytes() == (home / "run/ingredients/000/model.safetensors").read_bytes()


def test_text_to_text_gives_the_predictions_of_a_scorer_by_hand(home, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    t5 = tiny(tmp_path, "t5")
    more = ["model=t5_small", f"model.name={t5}", "model.text.max_length=400", "name=t5"]
    more += [f"runs={tmp_path / 'run'}", f"results={tmp_path / 'out'}"]
    experiment = Experiment(load(options(home, *more)))
    for stage in (heads, sweep, finetune, evaluate):
        assert stage.run(experiment)
    dataset = experiment.sets["validation"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(t5)
    model = transformers.T5ForConditionalGeneration.from_pretrained(t5).eval()
    for ingredient in experiment.ingredients.find().ingredients:
        state = {name.removeprefix("model."): tensor for name, tensor in load_weights(ingredient).items()}
        lost = model.load_state_dict(state, strict=False)
        assert not lost.unexpected_keys
        assert all("embed_tokens" in name or name == "lm_head.weight" for name in lost.missing_keys)  # tied
        logits_NC = experiment.logits.of("validation", ingredient.sha256).logits_NC
        for index in range(0, len(dataset), 5):
            prompt = f"sentence: {dataset.fields(index)['sentence']} | options: A) acceptable B) unacceptable | label:"
            ids = tokenizer(prompt, return_tensors="pt")
            for option, answer in enumerate(("A) acceptable", "B) unacceptable")):
                labels = tokenizer(answer, return_tensors="pt")["input_ids"]
                with torch.inference_mode():
                    score = -float(model(**ids, labels=labels).loss)
                assert float(logits_NC[index, option]) == pytest.approx(score, abs=3e-6)


def test_a_linear_head_starts_from_a_probe(home, tmp_path):
    more = ["model.text.objective=head", "heads.init=lp", "heads.lp_epochs=2", "name=head", "soup.minimum=1"]
    experiment = Experiment(load(options(home, *more, f"runs={tmp_path / 'run'}", "ingredient=0")))
    for stage in (heads, sweep, finetune):
        assert stage.run(experiment)
    start = load_weights(experiment.ingredients.initial()["initialization"])["head.weight"]
    trained = load_weights(experiment.ingredients.find().ingredients[0])["head.weight"]
    assert start.shape == trained.shape == (2, 64)
    assert start.any()
    assert not torch.equal(start, trained)


def test_texts_that_official_sets_share_are_counted_and_others_refused(home, tmp_path):
    write(tmp_path)
    folder = tmp_path / "GLUE/CoLA"
    first = (folder / "dev.tsv").read_text().splitlines()[0]
    with open(folder / "train.tsv", "a") as file:
        file.write(first + "\n")
    shared = ["data.choose_on=validation", f"data.dir={tmp_path / 'data'}", f"runs={tmp_path / 'run'}", "sweep.count=1"]
    shutil.copytree(home / "run/init", tmp_path / "run/init")
    experiment = Experiment(load(options(tmp_path, *shared, "ingredient=0")))
    for stage in (prepare, heads, sweep, finetune):
        stage.run(experiment)
    (note,) = {n for n in experiment.sets["validation"].notes if "train" in n}
    assert "1 " in note
    own = [*shared, "data.text.official=false", f"data.dir={tmp_path / 'other'}"]
    refused = modelsoups(tmp_path, "prepare", *options(tmp_path, *own))
    assert refused.returncode == 1
    assert "train" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_slurm_gets_the_tasks_own_options(home):
    said = run(home, "submit", *options(home, "submit.dry_run=true", "cluster.gpus_per_node=2"))
    assert "experiment=glue" in said
    assert "data=glue_cola" in said
    assert "sbatch" in said


def test_a_multirun_trains_a_task_with_two_seeds(home, tmp_path):
    made = [f"runs={tmp_path}/${{name}}", f"results={tmp_path}/out/${{name}}"]
    run(home, "sweep", "-m", *[o for o in options(home, *made) if not o.startswith("name=")], "name=a,b")
    assert (tmp_path / "a/draw.jsonl").read_bytes() == (tmp_path / "b/draw.jsonl").read_bytes()
