"""YAML that asks for more than it is: every bound ends in one short sentence, at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from suder.settings.config_file import ConfigError, load_config
from suder.settings.yaml_file import LARGEST, YamlError, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "line 5: its aliases make more than"),
        (f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 1000)}]\n", "aliases make more"),
        ("a: &a [*a]\n", "line 1: holds itself by an alias"),
        ("a: &a\n  b: {c: *a}\n", "holds itself by an alias"),
        ("<<: &a {<<: *a}\n", "holds itself by an alias"),
        ("a: " + "[" * 100_000, "line 1: more than 32 levels deep"),
        ("a: " + "{b: " * 10_000, "line 1: more than 32 levels deep"),
        ("".join(" " * i + "a:\n" for i in range(400)), "line 32: more than 32 levels deep"),
        ("x" * (LARGEST + 1), "settings have at most"),
        ("? [a, b]\n: 1\n", "not readable YAML"),
        ("a: 2001-99-99\n", "not readable YAML"),
        ("a: 1" + "0" * 5000, "not readable YAML"),
        ("a: \x07\n", "not readable YAML"),
    ],
)
def test_bounded(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(YamlError, match=message) as raised:
        read_yaml(path)
    assert time.monotonic() - began < 5
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 1000
    with pytest.raises(ConfigError):
        load_config(path)


def test_only_regular_files(tmp_path: Path) -> None:
    """A named pipe would hang, a device never end."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(YamlError, match="not a regular file"):
            read_yaml(path)


def test_places_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffa: 1e-4\nb:\n  c: x\n".encode())
    assert read_yaml(path) == ({"a": 1e-4, "b": {"c": "x"}}, {("a",): 1, ("b",): 2, ("b", "c"): 3})
    path.write_text("# nothing\n")
    assert read_yaml(path) == ({}, {})
