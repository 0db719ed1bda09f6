"""Time limits in SLURM's notation, and YAML's reading of them."""

import pytest

from modelsoups.config import limits
from modelsoups.config.compose import load


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("12:00:00", 43200),
        ("1-2", 93600),
        ("1-2:30", 95400),
        ("1-00:00:01", 86401),
        ("12 h", None),
        ("", None),
    ],
)
def test_limits_are_read_as_slurm_reads_them(text, seconds):
    assert limits.seconds(text) == seconds


def test_a_limit_that_yaml_reads_as_a_number_is_refused(tmp_path, monkeypatch):
    (tmp_path / "conf/cluster").mkdir(parents=True)
    (tmp_path / "conf/cluster/mine.yaml").write_text("time: 12:00:00\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r'^cluster\.time=43200: expected text, .* in quotation marks, such as "12:00'):
        load(["cluster=mine"])
    (tmp_path / "conf/cluster/mine.yaml").write_text('time: "12:00:00"\nstage_time: UNLIMITED\n')
    assert load(["cluster=mine"]).cluster.time == "12:00:00"
    assert load(["cluster=mine", "cluster.time=1-00:00:00"]).cluster.time == "1-00:00:00"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster.time=tomorrow"], r"cluster\.time=tomorrow: expected minutes, hours"),
        (["cluster.notice=60", "cluster.time='01:00'"], r"notice=60: expected at most half of cluster\.time=01:00"),
        (["cluster.notice=300", "cluster.stage_time=00:05:00"], r"notice=300: .* half of cluster\.stage_time=00:05:00"),
    ],
)
def test_limits_that_leave_no_time_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        load(overrides)


def test_a_working_folder_may_have_an_apostrophe(tmp_path, monkeypatch):
    (tmp_path / "it's mine/conf/cluster").mkdir(parents=True)
    (tmp_path / "it's mine/conf/cluster/mine.yaml").write_text("partition: gpu\n")
    monkeypatch.chdir(tmp_path / "it's mine")
    assert load(["cluster=mine"]).cluster.partition == "gpu"
