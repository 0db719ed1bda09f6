"""Completion of stages, configuration keys and their values by the shell's Tab key.

Unlike Hydra's own completion, this knows the stages, and starts no Python when Tab is pressed.
"""

from collections.abc import Sequence

from modelsoups.cli.errors import fail
from modelsoups.config.compose import keys
from modelsoups.disk.paths import shipped

FLAG = "--shell-completion"
USES = "install=bash or install=zsh"

SCRIPT = """_modelsoups() {{
    local line="${{COMP_LINE:0:COMP_POINT}}"
    local word="${{line##* }}" words="{keys}"
    [[ $line =~ ^[^\\ ]+\\ +[^\\ ]*$ ]] && words="{stages} $words"
    [[ $line =~ ^[^\\ ]+\\ +({files})\\  ]] && words=""
    [[ $word == *=* ]] && words="{values}"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${{COMPREPLY[@]#*=}}")
    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
    return 0
}}
complete -o default -F _modelsoups modelsoups"""


def main(arguments: Sequence[str], stages: Sequence[str], with_files: Sequence[str]) -> None:
    """Print the script that `eval` installs in a shell; exit with 2 for other arguments.

    with_files: the commands whose arguments are files, which the shell completes itself.
    """
    if list(arguments) not in (["install=bash"], ["install=zsh"]):
        how = 'put eval "$(modelsoups --shell-completion install=bash)" into ~/.bashrc'
        fail(f"{FLAG} {' '.join(arguments)}: expected {USES}; {how}", status=2)
    if arguments == ["install=zsh"]:
        print("autoload -U +X compinit bashcompinit && compinit && bashcompinit")
    names, values = words()
    texts = {"keys": names, "values": values, "stages": [*stages, *with_files]}
    joined = {name: " ".join(found) for name, found in texts.items()}
    print(SCRIPT.format(files="|".join(with_files), **joined))


def words() -> tuple[list[str], list[str]]:
    """Return the words "key=" of all keys and groups of conf/, and "key=value" of those with choices."""
    names, values = [], []
    for group in sorted(path for path in shipped("conf").iterdir() if path.is_dir()):
        names.append(f"{group.name}=")
        values += sorted(f"{group.name}={file.stem}" for file in group.glob("*.yaml"))
    for name, about in keys().items():
        names.append(f"{name}=")
        choices = ("true", "false") if about.type in (bool, "bool") else about.metadata["choices"]
        values += [f"{name}={choice}" for choice in choices if choice is not None]
    return names, values
