"""Completion by the shell: the script that is installed, run in bash."""

import shutil
import subprocess

import pytest

from modelsoups.cli import commands

BASH = shutil.which("bash")


@pytest.fixture
def script(capsys) -> str:
    commands.main(["--shell-completion", "install=bash"])
    return capsys.readouterr().out


def completed(script: str, line: str) -> list[str]:
    """Return what bash offers for this line, with the cursor at its end."""
    asked = f"{script}\ncompopt() {{ :; }}\nCOMP_LINE='{line}' COMP_POINT={len(line)}\n_modelsoups\n"
    done = subprocess.run([BASH, "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_stages_keys_and_values_are_completed(script):
    assert completed(script, "modelsoups fin")[0] == "finetune"
    assert completed(script, "modelsoups do") == ["doctor"]
    assert completed(script, "modelsoups finetune finetune.par") == ["finetune.parallel="]
    assert completed(script, "modelsoups finetune finetune.decode=t") == ["turbo"]  # = begins a new word in bash
    assert completed(script, "modelsoups experiment=minia") == ["miniature"]
    assert completed(script, "modelsoups mix uniform mod") == []  # the shell completes names of files
    assert "prepare" not in completed(script, "modelsoups finetune pr")


def test_other_arguments_end_in_one_line_that_says_how(capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(["--shell-completion", "install=csh"])
    assert "--shell-completion install=csh: expected install=bash or install=zsh; put eval" in capsys.readouterr().err
