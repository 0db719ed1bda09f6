"""Remove what wrappers such as DistributedDataParallel add to the names of tensors."""

from modelsoups.checkpoints.tensors import Checkpoint

# Names that torch and Lightning give a wrapped model; no part of a model is called so.
INNER = ("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module")
# module: of DistributedDataParallel, AveragedModel, DeepSpeed.
PREFIXES = ("module.", *(f"{name}." for name in INNER))
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside module.*


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """Remove what wrappers of a model add to its tensors' names, in place; note each change.

    `module.` is removed only if all names begin with it, because a model may have a part called so;
    the names of torch.compile, FSDP and activation checkpointing are removed everywhere.
    """
    while True:
        names = [key for key in checkpoint if key != COUNTER]
        prefix = next((p for p in PREFIXES if names and all(key.startswith(p) for key in names)), None)
        if prefix is None:
            break
        if COUNTER in checkpoint.entries:
            if prefix != "module.":
                break
            leave_out(checkpoint, COUNTER)
            checkpoint.notes.append(f"{COUNTER} left out: the step counter of AveragedModel")
        rename(checkpoint, {key: key.removeprefix(prefix) for key in checkpoint})
        checkpoint.notes.append(f"prefix {prefix} removed")
    every = "\n".join(checkpoint)
    if not any(name in every for name in INNER):
        return checkpoint
    shorter = {key: ".".join(part for part in key.split(".") if part not in INNER) for key in checkpoint}
    changed = [key for key in checkpoint if shorter[key] != key]
    if changed and len(set(shorter.values())) == len(shorter):
        found = ", ".join(name for name in INNER if any(name in key.split(".") for key in changed))
        rename(checkpoint, shorter)
        checkpoint.notes.append(f"{found} removed from {len(changed)} tensor names")
    return checkpoint


def rename(checkpoint: Checkpoint, new: dict[str, str]) -> None:
    """Rename all tensors in place, given {old name: new name}; their order stays the same."""
    checkpoint.entries = {new[key]: entry for key, entry in checkpoint.entries.items()}
    checkpoint.tied = {new[key]: new[kept] for key, kept in checkpoint.tied.items()}


def leave_out(checkpoint: Checkpoint, name: str) -> None:
    """Remove a tensor; if several others are tied to it, tie them to the first of these instead."""
    del checkpoint.entries[name]
    checkpoint.tied.pop(name, None)
    heirs = [key for key, kept in checkpoint.tied.items() if kept == name]
    for key in heirs[:1]:
        del checkpoint.tied[key]
    checkpoint.tied |= dict.fromkeys(heirs[1:], heirs[0]) if heirs else {}
