"""What text files contain, and the one-line message for each kind of wrong line."""

import csv
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelsoups.config.compose import load
from modelsoups.data.text import examples, sets, sources
from modelsoups.data.text.library import names
from modelsoups.data.text.sources import Source

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r\0"), min_size=1).filter(str.strip)


def read(data, name="train"):
    return examples.read(sources.find(data, name), data.text)


def texts(found):
    return [(example.fields["sentence"], example.label) for example in found]


def test_rows_become_texts_and_indices_of_options(data):
    assert texts(read(data()))[:2] == [("the dog sings today", 0), ("the dog cries today", 1)]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfsentence\tlabel\n"one " two\t1\nthree\t0\n',  # BOM, a single quotation mark
        b'sentence\tlabel\r\n"one " two\t1\r\nthree\t0',  # \r\n, no line end at the end
        b'idx\tlabel\tsentence\n7\t 1\t "one " two \n8\t0\tthree\n\n\n',  # spaces, empty lines at the end
    ],
)
def test_forms_of_one_tsv(data, folder, content):
    (folder / "train.tsv").write_bytes(content)
    assert texts(read(data())) == [('"one " two', 0), ("three", 1)]


def test_other_characters_that_end_lines_elsewhere_stay_in_a_text(data, folder):
    text = "one\u2028two\x85three\x0bfour"
    (folder / "train.tsv").write_text(f"sentence\tlabel\n{text}\t1\n", encoding="utf-8")
    assert texts(read(data())) == [(text, 0)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sentences=st.lists(PLAIN, min_size=1, max_size=5))
def test_any_texts_are_read_alike_from_tsv_csv_and_json(data, folder, rows, sentences):
    _, tsv, jsonl = rows
    labelled = [(sentence, i % 2) for i, sentence in enumerate(sentences)]
    (folder / "train.tsv").write_text(tsv(labelled), encoding="utf-8", newline="")
    (folder / "a.jsonl").write_text(jsonl(labelled))
    with open(folder / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence", "label"), *labelled])
    text = data().text
    found = [examples.read(Source(folder, (folder / name,)), text) for name in ("train.tsv", "a.jsonl", "a.csv")]
    assert sets.lines(found[0]) == sets.lines(found[1]) == sets.lines(found[2])
    assert texts(found[0]) == [(sentence.strip(), 1 - label) for sentence, label in labelled]


def test_quotation_marks_enclose_columns_in_csv_only(data, folder):
    (folder / "train.tsv").unlink()
    (folder / "train.csv").write_text('sentence,label\n"one, ""two""\nthree",1\nfour,0\n')
    assert texts(read(data())) == [('one, "two"\nthree', 0), ("four", 1)]
    assert texts(read(data("data.text.files.train=train.csv")))[1] == ("four", 1)
    (folder / "train.csv").write_text('sentence,label\n"one",1\n')
    assert texts(read(data("data.text.quotes=false"))) == [('"one"', 0)]
    (folder / "mine.tsv").write_text('sentence\tlabel\n"one\ttwo"\t1\n')
    assert texts(read(data("data.text.quotes=true", "data.text.files.train=mine.tsv"))) == [("one\ttwo", 0)]


def test_json_lines(data, folder):
    (folder / "train.tsv").unlink()
    (folder / "train.jsonl").write_text('{"sentence": "one\\n", "label": 1}\n{"label": "0", "sentence": "two"}\n')
    assert texts(read(data())) == [("one", 0), ("two", 1)]


def test_a_file_without_header_gets_the_names_of_the_configuration(data, folder):
    given = "data.text.columns=[source,label,mark,sentence]"
    (folder / "train.tsv").write_text("a1\t1\t\tone\na2\t0\t*\ttwo\n")
    assert texts(read(data(given))) == [("one", 0), ("two", 1)]
    (folder / "train.tsv").write_text("sentence\tlabel\none\t1\n")  # the same data, made into a table with a header
    assert texts(read(data(given))) == [("one", 0)]


WRONG = {
    "sentence\tlabel\none\t1\ttwo\n": r"train\.tsv line 2 has 3 columns; expected 2 \(sentence, label\)",
    "sentence\tlabel\none\t1\ntwo\n": r"train\.tsv line 3 has 1 columns; expected 2",
    "sentence\tlabel\none\t1\n\ntwo\t0\n": r"train\.tsv line 3 is empty; remove it",
    "sentence\tlabel\n \t1\n": r"train\.tsv line 2: sentence is empty; fill it in",
    "sentence\tlabel\none\t2\n": r"line 2: label is '2'; expected one of 1, 0 \(data\.text\.labels\)",
    "sentence\tlabel\none\t\n": r"line 2: label is missing; GLUE's test sets have no labels",
    "sentence\tlabel\none\t-1\n": r"line 2: label is -1; GLUE's test sets have no labels",
    "index\tsentence\n0\tone\n": r"has columns index, sentence, but none is label .*; GLUE's test sets have no labels",
    "text\tlabel\none\t1\n": r"has columns text, label, but none is sentence \(data\.text\.fields\.sentence\)",
    "sentence\tlabel\tlabel\none\t1\t0\n": "two columns called label; rename one",
    'sentence\tlabel\none\t1\n"a ""b"""\t0\n': r"line 3: quotation marks seem to enclose a column",
    "sentence\tlabel\n": "has no examples",
    "\n\n": "is empty; put one example on each line",
    "sentence\tlabel\non\0e\t1\n": r"line 2 contains a NUL byte",
    "sentence\tlabel\rone\t1\r": r"lines that end with \\r only",
}


@pytest.mark.parametrize(("content", "said"), WRONG.items())
def test_a_wrong_line_is_named(data, folder, content, said):
    (folder / "train.tsv").write_bytes(content.encode())
    with pytest.raises(ValueError, match=said) as error:
        read(data())
    assert "\n" not in str(error.value)


WRONG_JSON = {
    '{"sentence": "one", "label": 1}\n{"sentence": "two"}\n': "line 2: label is missing",
    '{"sentence": "one", "label": 1}\n{"label": 1}\n': "line 2 has no sentence; add it",
    '{"sentence": 3, "label": 1}\n': "line 1: sentence is 3, which is not text",
    '{"sentence": null, "label": 1}\n': "line 1: sentence is empty",
    '{"sentence": "one", "label": true}\n': "line 1: label is True; expected one of 1, 0",
    '{"sentence": "one", "label": 0.5}\n': "line 1: label is 0.5; expected one of",
    '{"sentence": "\\ud800", "label": 1}\n': "line 1: sentence contains an incomplete character",
    '{"sentence": "a\\u0000", "label": 1}\n': "line 1: sentence contains a NUL character",
    '[{"sentence": "one", "label": 1}]\n': "line 1 is not a JSON object; write each example as one object on one line",
    '{\n"sentence": "one", "label": 1}\n': "line 1 is not valid JSON",
    "[" * 100_000 + "\n": "line 1 is not valid JSON",
}


@pytest.mark.parametrize(("content", "said"), WRONG_JSON.items(), ids=range(len(WRONG_JSON)))
def test_a_wrong_line_of_json_is_named(data, folder, content, said):
    (folder / "mine.jsonl").write_text(content)
    with pytest.raises(ValueError, match=said):
        read(data("data.text.files.train=mine.jsonl"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "sentence\tlabel\nnaïve\t1\n".encode("latin-1"),
            r"line 2 is not in UTF-8 \(byte 0xEF at 17\); .*iconv -f LAT",
        ),
        (b"\xef\xbb\xbfsentence\tlabel\n\xff\t1\n", r"line 2 is not in UTF-8 \(byte 0xFF at 18\)"),
        ("sentence\tlabel\none\t1\n".encode("utf-16"), "is in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 train.tsv"),
        ("sentence\tlabel\none\t1\n".encode("utf-16-le"), "line 1 contains a NUL byte; .*iconv -f UTF-16"),
    ],
)
def test_another_encoding_is_named_with_the_way_to_convert_it(data, folder, content, said):
    (folder / "train.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read(data())


def test_unclosed_quotation_marks_are_named_where_they_open(data, folder):
    (folder / "mine.csv").write_text('sentence,label\none,1\n"two,0\nthree,1\n')
    with pytest.raises(ValueError, match=r"mine\.csv line 3: wrong quotation marks .*data\.text\.quotes=false"):
        read(data("data.text.files.train=mine.csv"))


def test_a_pipe_is_not_waited_for(data, folder):
    (folder / "train.tsv").unlink()
    os.mkfifo(folder / "train.tsv")
    with pytest.raises(ValueError, match="is not a regular file but a pipe"):
        read(data())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.text.labels.0=happy"], r"data\.text\.labels has labels .*give each label its text"),
        (["data.text.labels.0=' sad'"], "an option is empty, or has spaces around it"),
        (["data.text.prompt=''"], r"data\.text\.prompt='' must contain \{sentence\}"),
        (["data.text.prompt='{sentence} {other}'"], r"must contain \{sentence\}, and no other name"),
        (["data.text.prompt='{sentence'"], "is not a valid format"),
        (["data.text.fields.sentence=[]"], r"data\.text\.fields names no columns"),
        (["data.holdout_fraction=1"], "expected a number above 0 and below 1"),
        (["data.test=train"], "data set train is named twice"),
    ],
)
def test_a_configuration_that_does_not_fit_together(data, overrides, said):
    with pytest.raises(ValueError, match=said):
        names(data(*overrides))


def test_labels_that_yaml_reads_as_something_else(data, folder):
    conf = folder.parent / "conf/data/moods.yaml"
    whole = conf.read_text()
    own = ["data=moods", "name=moods"]
    assert load(own).data == data()  # read from the YAML, and made by hand
    conf.write_text(whole.replace('"1": happy, "0": sad', "1: happy, 0: sad"))
    with pytest.raises(ValueError, match=r"data\.text\.labels.*write them in quotation marks"):
        load(own)
    conf.write_text(whole.replace('"1": happy, "0": sad', '"1": yes, "0": no'))
    with pytest.raises(ValueError, match=r"data\.text\.labels\.1: YAML reads yes and no as True"):
        load(own)
