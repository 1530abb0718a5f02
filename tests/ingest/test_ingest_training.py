"""load_training_data and read_training_data."""

import json
import logging
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import AIError, ConfigurationError, FileTooLargeError
from bulletproof.ingest import load_training_data, read_training_data
from bulletproof.ingest import training as training_module

GOOD = {"X": [[1, 2.5], [3, 4]], "y": ["a", "b"]}


class Monitor:
    def __init__(self):
        self.events = []

    def record_error(self, error_type, service, severity, message, **context):
        self.events.append((error_type, service, severity, message, context))


@pytest.fixture
def write(tmp_path):
    def _write(content: object) -> str:
        path = tmp_path / "data.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return _write


@pytest.mark.parametrize(
    ("features", "columns", "values"),
    [
        ([[1, 2.5], [3, 4]], [0, 1], [[1.0, 2.5], [3.0, 4.0]]),
        ([1, 2], [0], [[1], [2]]),
        ([{"a": 1, "b": 2}, {"b": 4, "a": 3}], ["a", "b"], [[1, 2], [3, 4]]),
    ],
)
def test_features_and_labels_come_as_the_file_has_them(write, features, columns, values):
    frame, labels = load_training_data(write({"X": features, "y": [0, "one"]}))
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == columns
    assert frame.to_numpy().tolist() == values
    assert labels == [0, "one"]


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60)), min_size=1))
def test_numbers_survive(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "data.json"
    path.write_text(json.dumps({"X": rows, "y": list(range(len(rows)))}))
    frame, labels = read_training_data(path)
    assert [tuple(row) for row in frame.itertuples(index=False)] == rows
    assert labels == list(range(len(rows)))


def test_a_byte_order_mark_and_other_fields_do_no_harm(write):
    frame, _ = load_training_data(write(b"\xef\xbb\xbf" + json.dumps({**GOOD, "meta": "x"}).encode()))
    assert frame.shape == (2, 2)


BAD = {
    "empty": (b"", "empty_file", "empty"),
    "blank": (b" \n ", "empty_file", "empty"),
    "cut off": (b'{"X": [[1, 2],\n [3,', "invalid_json", "line 2, column 5"),
    "not json": (b"X,y\n1,2\n", "invalid_json", "line 1, column 1"),
    "trailing": (b'{"X": [], "y": []}\nmore', "invalid_json", "line 2, column 1"),
    "deep": (b"[" * 100_000, "invalid_json", "levels"),
    "a list": ([1, 2], "invalid_input", "the top level is an array"),
    "a number": (b"5", "invalid_input", "a number"),
    "null": (b"null", "invalid_input", "null"),
    "no X": ({"y": [1], "features": []}, "missing_field", "lacks X; its fields are 'y', 'features'"),
    "no y": ({"X": [[1]]}, "missing_field", "lacks y"),
    "neither": ({}, "missing_field", "lacks X and y"),
    "lengths": ({"X": [[1], [2]], "y": [1]}, "shape_mismatch", "2 rows and y has 1 labels"),
    "ragged": ({"X": [[1, 2], [3]], "y": [0, 1]}, "shape_mismatch", "row 2"),
    "ragged objects": ({"X": [{"a": 1}, {"b": 1}], "y": [0, 1]}, "shape_mismatch", "'a', 'b'"),
    "mixed rows": ({"X": [[1], 2], "y": [0, 1]}, "shape_mismatch", "row 2"),
    "mixed rows 2": ({"X": [{"a": 1}, [2]], "y": [0, 1]}, "shape_mismatch", "row 2"),
    "empty rows": ({"X": [[], []], "y": [0, 1]}, "shape_mismatch", "row 1"),
    "no rows": ({"X": [], "y": []}, "empty_file", "no rows"),
    "text": ({"X": [[1, 2], [3, "4"]], "y": [0, 1]}, "not_numeric", "row 2, column 2"),
    "text in object": ({"X": [{"a": "x"}], "y": [0]}, "not_numeric", "column a"),
    "single text": ({"X": ["x"], "y": [0]}, "not_numeric", "row 1, column 1"),
    "bool": ({"X": [[True]], "y": [0]}, "not_numeric", "true or false"),
    "null value": ({"X": [[None]], "y": [0]}, "not_numeric", "null"),
    "nested": ({"X": [[[1]]], "y": [0]}, "not_numeric", "an array"),
    "NaN": (b'{"X": [[1], [NaN]], "y": [0, 1]}', "not_numeric", "NaN"),
    "infinity": (b'{"X": [[1], [-Infinity]], "y": [0, 1]}', "not_numeric", "infinite"),
    "overflow": (b'{"X": [[1e400]], "y": [0]}', "not_numeric", "infinite"),
    "huge integer": (b'{"X": [[' + b"9" * 5000 + b']], "y": [0]}', "invalid_json", "20 digits"),
    "NaN label": (b'{"X": [[1]], "y": [NaN]}', "not_numeric", "label"),
    "null label": ({"X": [[1]], "y": [None]}, "invalid_input", "label is null"),
    "y no list": ({"X": [[1]], "y": 5}, "invalid_input", "y is a number"),
    "X no list": ({"X": "abc", "y": ["a", "b", "c"]}, "invalid_input", "X is a text"),
    "latin-1": ('{"X": [[1]], "y": ["größer"]}'.encode("latin-1"), "invalid_encoding", "byte 22"),
    "utf-16": (json.dumps(GOOD).encode("utf-16"), "invalid_encoding", "UTF-16"),
    "binary": (bytes(range(256)), "invalid_encoding", "UTF-8"),
    "surrogate": (b'{"X": [[1]], "y": ["\\ud800"]}', "invalid_json", "surrogate"),
}


@pytest.mark.parametrize("content, code, words", BAD.values(), ids=BAD)  # noqa: PT006
def test_bad_content_gives_none_one_log_record_and_one_event(write, caplog, content, code, words):
    path, monitor = write(content), Monitor()
    with caplog.at_level(logging.INFO, logger="bulletproof.ingest"):
        assert load_training_data(path, monitor=monitor) is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert words.lower() in record.getMessage().lower()
    assert path in record.getMessage()
    assert record.code == code
    ((error_type, service, severity, message, context),) = monitor.events
    assert (error_type, service, severity) == ("validation_error", "training_data", "low")
    assert context["code"] == code
    assert message in record.getMessage()
    with pytest.raises(AIError) as caught:
        read_training_data(path)
    assert caught.value.code == code


def test_the_monitor_of_the_process_is_told_by_default(write, monkeypatch):
    monitor = Monitor()
    monkeypatch.setattr(training_module, "default_monitor", lambda: monitor)
    load_training_data(write(b""))
    assert monitor.events[0][4]["code"] == "empty_file"


def test_no_content_of_the_file_is_logged(write, caplog):
    load_training_data(write({"X": [["my secret"]], "y": [0]}))
    assert "secret" not in caplog.text


def test_a_missing_file_a_directory_and_strange_paths(tmp_path, caplog):
    for path, code in [
        (tmp_path / "none.json", "file_not_found"),
        (tmp_path, "invalid_input"),
        (tmp_path / ("x" * 1000), "io_error"),
        ("bad\0path", "invalid_input"),
        (None, "invalid_input"),
        (5, "invalid_input"),
    ]:
        caplog.clear()
        assert load_training_data(path) is None
        assert [record.code for record in caplog.records] == [code]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(AIError, match="a device or a pipe"):
            read_training_data(path)


def test_a_file_without_permission(write, monkeypatch):
    path = write(GOOD)
    Path(path).chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything

        def refuse(*_args, **_kwargs):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(training_module.os, "open", refuse)
    with pytest.raises(AIError) as caught:
        read_training_data(path)
    assert caught.value.code == "permission_denied"
    assert isinstance(caught.value.__cause__, PermissionError)


def test_an_oversized_file_is_never_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(50 * 2**30)  # sparse: it takes no space
    assert load_training_data(path) is None
    with pytest.raises(FileTooLargeError, match="at most 268,435,456 are read"):
        read_training_data(path)
    small = tmp_path / "small.json"
    small.write_text(json.dumps(GOOD))
    with pytest.raises(FileTooLargeError, match="at most 10 are read"):
        read_training_data(small, max_bytes=10)
    size = small.stat().st_size
    assert read_training_data(small, max_bytes=size)[0].shape == (2, 2)


def test_a_file_that_grows_while_it_is_read_is_refused(write, monkeypatch):
    path = write(GOOD)
    stat = Path(path).stat()

    def smaller(_descriptor):
        return os.stat_result((*stat[:6], 1, *stat[7:]))

    monkeypatch.setattr(training_module.os, "fstat", smaller)
    with pytest.raises(FileTooLargeError):
        read_training_data(path, max_bytes=5)


def test_pandas_missing_is_said_with_what_to_install(write, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = write(GOOD)
    with pytest.raises(ConfigurationError) as caught:
        read_training_data(path)
    assert caught.value.code == "missing_dependency"
    assert load_training_data(path) is None
    assert "pip install" in caplog.text


def test_memory_that_gives_out_is_a_typed_error(write, monkeypatch):
    def burst(*_args):
        raise MemoryError

    monkeypatch.setattr(training_module, "_table", burst)
    monitor = Monitor()
    assert load_training_data(write(GOOD), monitor=monitor) is None
    assert monitor.events[0][0] == "resource_error"
    assert monitor.events[0][4]["code"] == "out_of_memory"


def test_even_a_bug_or_a_broken_monitor_does_not_crash_the_program(write, monkeypatch, caplog):
    class Broken:
        def record_error(self, *_args, **_kwargs):
            raise RuntimeError("no monitor today")

    def bug(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(training_module, "_table", bug)
    assert load_training_data(write(GOOD), monitor=Broken()) is None
    assert "ZeroDivisionError" in caplog.text
    assert "no monitor today" in caplog.text


def test_stopping_the_program_is_no_failure_of_the_data(write, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_module, "_table", stop)
    with pytest.raises(KeyboardInterrupt):
        load_training_data(write(GOOD))


def test_a_field_given_twice_is_said(write, caplog):
    frame, _ = load_training_data(write('{"X": [[1]], "X": [[2]], "y": [0]}'))
    assert frame.to_numpy().tolist() == [[2]]
    assert "'X' twice" in caplog.text
