"""Checks the time limits of SLURM jobs, in the section `cluster`."""

import re
from typing import Any

FORMS = 'minutes, hours:minutes:seconds or days-hours:minutes:seconds in quotation marks, such as "12:00:00"'


def check(given: Any, cluster: Any) -> None:
    """Raise ValueError for a time limit that SLURM would read otherwise, or that leaves no time to train.

    given: the section as YAML was read; cluster: as it was converted to the types of its keys.
    """
    for key in ("time", "stage_time"):
        limit = cluster[key]
        if not isinstance(given[key], str):
            why = "YAML reads 12:00:00 without them as the number 43200, and SLURM that as 30 days"
            raise ValueError(f"cluster.{key}={limit}: expected text, {FORMS}: {why}")
        length = seconds(limit)
        if length is None and limit.lower() not in ("unlimited", "infinite"):
            raise ValueError(f"cluster.{key}={limit}: expected {FORMS}")
        if length is not None and 2 * cluster.notice > length:
            half = f"at most half of cluster.{key}={limit}, or a job would end before it makes progress"
            raise ValueError(f"cluster.notice={cluster.notice}: expected {half}")


def seconds(limit: str) -> int | None:
    """Return the seconds of a time limit in SLURM's notation, None for other text: 90 minutes for "90"."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if found is None:
        return None
    days, *parts = (int(part) if part else 0 for part in found.groups())
    if found[1] is not None or found[4] is not None:  # days-hours[:minutes[:seconds]], hours:minutes:seconds
        hours, minutes, rest = parts
    else:  # minutes[:seconds]
        hours, (minutes, rest) = 0, parts[:2]
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
