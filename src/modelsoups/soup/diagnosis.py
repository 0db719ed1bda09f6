"""The results of `soup.doctor`, which checks whether K checkpoints can be averaged into a soup."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """One problem: its cause ("shapes"), its checkpoints, a message, and whether it is fatal."""

    cause: str
    who: tuple[str, ...]
    text: str
    fatal: bool


@dataclass
class Diagnosis:
    """The problems of K checkpoints, called `names`, and K x K matrices that compare all pairs.

    angles_KK: degrees between the weights or, if from_init, between their differences from the
    initialization. midpoints_KK: accuracy of the mean of each pair (on the diagonal: of one model).
    """

    names: list[str]
    findings: list[Finding] = field(default_factory=list)
    angles_KK: Tensor | None = None
    from_init: bool = False
    midpoints_KK: Tensor | None = None

    @property
    def healthy(self) -> bool:
        return not any(f.fatal for f in self.findings)

    def add(self, cause: str, who: Sequence[str], text: str, fatal: bool = True) -> None:
        """Record a problem of the checkpoints `who`; do nothing if `who` is empty."""
        if who:
            more = f" and {len(who) - 5} more" if len(who) > 5 else ""
            self.findings.append(Finding(cause, tuple(who), f"{', '.join(who[:5])}{more}: {text}", fatal))

    def add_sentence(self, cause: str, text: str) -> None:
        """Record a fatal problem, described by a sentence that already names the checkpoints."""
        self.findings.append(Finding(cause, ("all",), text, True))

    def verdict(self) -> str:
        fatal = [f.text for f in self.findings if f.fatal]
        if fatal:
            return f"a soup of these checkpoints will fail: {'; '.join(fatal)}"
        doubts = "; ".join(f.text for f in self.findings)
        return "a soup of these checkpoints can succeed" + (f", but: {doubts}" if doubts else "")
