"""What is passed to SLURM's commands and read from their output."""

from modelsoups.cluster import slurm


def test_numbers_are_written_as_ranges():
    assert slurm.ranges([3]) == "3"
    assert slurm.ranges([5, 0, 1, 2, 7, 8]) == "0-2,5,7-8"
