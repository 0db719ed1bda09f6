"""What each method of the tables is, in one sentence each, for the tooltips of the page."""

GROUPS = {  # title of a group of Table 3's rows -> its rows; every other row is a soup
    "Before fine-tuning": ("zeroshot", "initialization"),
    "One fine-tuned model": ("best", "second_best"),
    "Soups: one averaged model": (),
    "Ensembles: every member runs": ("ensemble", "greedy_ensemble"),
    "Towards the initialization (WiSE-FT)": (),
    "Chosen on the test set, so too high": ("best_validation", "greedy_validation"),
}
SOUPS, WISE = "Soups: one averaged model", "Towards the initialization (WiSE-FT)"
METHODS = {
    "zeroshot": "The pre-trained model with a head made from class names: no training example was used.",
    "initialization": "The model from which every fine-tuning run starts: pre-trained encoder and first head.",
    "best": "The fine-tuned model with the highest score on the hold-out.",
    "second_best": "The fine-tuned model with the second-highest score on the hold-out.",
    "uniform": "The plain average of the weights of all fine-tuned models.",
    "greedy": "Models are tried in order of their hold-out score. Each joins the average of weights if the hold-out "
    "score of the average does not fall.",
    "greedy_random": "The greedy soup with models tried in random order; mean over several orders.",
    "greedy_replacement": "The greedy soup in which a model may join more than once.",
    "learned": "A weighted average whose coefficients, one for each model, are trained on the hold-out.",
    "learned_layers": "A weighted average whose coefficients, one for each model and layer, are trained on the "
    "hold-out.",
    "learned_tensors": "A weighted average whose coefficients, one for each model and tensor, are trained on the "
    "hold-out.",
    "ensemble": "The mean of the outputs of all fine-tuned models. Each model runs on each example.",
    "greedy_ensemble": "An ensemble whose members are chosen like those of the greedy soup. All run on each example.",
    "best_validation": "The fine-tuned model with the highest score on the test set, which is not a fair choice.",
    "greedy_validation": "The greedy soup chosen on the test set, which is not a fair choice.",
}


def method(row: str) -> str:
    """Return a sentence that explains a row of Table 3; empty for methods of other people."""
    if row.startswith("wise_ft_"):
        alpha = row.rsplit("_", 1)[1]
        model = "greedy soup" if row.startswith("wise_ft_greedy") else "best individual model"
        return f"The weights between the initialization (alpha 0) and the {model} (alpha 1), at alpha {alpha}."
    return METHODS.get(row, "")


def group(row: str) -> str:
    """Return the title of the group of Table 3's rows that this row belongs to."""
    if row.startswith("wise_ft_"):
        return WISE
    return next((title for title, rows in GROUPS.items() if row in rows), SOUPS)
