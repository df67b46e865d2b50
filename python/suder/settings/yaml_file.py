"""The one reader of YAML, bounded: a file of a kilobyte may not ask for gigabytes, nor for ever."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 18  # bytes of a file
DEEPEST = 32  # collections inside one another
MOST = 20_000  # values, each alias counted as often as it is used, long texts as several
_SHOWN = 80  # characters of the text that a message quotes

Place = dict[tuple[str, ...], int]  # key path -> line it stands on, from 1


class YamlError(ValueError):
    """Text that is not YAML, or more of it than is read; the message says where."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads `1e-4` as a number (YAML 1.1 wants `1.0e-4`)."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            line = yaml.SafeLoader.peek_event(self).start_mark.line + 1
            raise YamlError(f"line {line}: more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> tuple[dict[str, Any], Place]:
    """The mapping in a file, and the line of each of its keys.

    Raises:
        YamlError: the file is too large, is no YAML or no mapping, or sets a key twice.
    """
    name = str(path)
    if not path.is_file():
        raise YamlError(f"{name}: not a regular file")
    if path.stat().st_size > LARGEST:
        raise YamlError(f"{name}: {path.stat().st_size} bytes; settings have at most {LARGEST}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"{name} is not UTF-8 text ({error.reason}, byte {error.start})") from None
    places: Place = {}
    try:
        tree = _load(text, places)
    except YamlError as error:
        raise YamlError(f"{name}, {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # a value such as 2001-99-99 is a ValueError
        raise YamlError(f"{name} is not readable YAML: {error}") from None
    if tree is None:
        return {}, places
    if not isinstance(tree, dict):
        raise YamlError(f"{name}: expected `key: value` lines, got {type(tree).__name__}")
    return tree, places


def read_value(text: str) -> Any:
    """A YAML value of one line, such as the right side of `--set key=value`.

    Raises:
        YamlError: it is none, or a comment begins in it, which nobody means there.
    """
    try:
        value = _load(text, {})
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"not a YAML value ({error})") from None
    if re.search(r"(^|\s)#", text) and not (isinstance(value, str) and "#" in value):
        raise YamlError("` #` begins a comment in YAML; put the value in quotes")
    return value


def _load(text: str, places: Place) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        _note_lines(node, (), places)  # before merge keys are put in the place of what they merge
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values under a node with its aliases written out; counted without writing them out."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value) // _SHOWN
    line = node.start_mark.line + 1
    if id(node) not in known:
        known[id(node)] = 0  # until it is known
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = [one for pair in node.value for one in pair]
        total = 1
        for child in children:
            total += _count(child, known)
            if total > MOST:
                raise YamlError(f"line {line}: its aliases make more than {MOST} values")
        known[id(node)] = total
    if known[id(node)] == 0:
        raise YamlError(f"line {line}: holds itself by an alias")
    return known[id(node)]


def _note_lines(node: yaml.Node, at: tuple[str, ...], places: Place) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        # A key may be a collection, which the constructor refuses.
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
        here, line = (*at, name), key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:merge":
            continue  # what it brings in may be set again below, and stands elsewhere
        if here in places:
            dotted = ".".join(here)[:_SHOWN]
            raise YamlError(f"`{dotted}` is set twice, lines {places[here]} and {line}")
        places[here] = line
        _note_lines(value, here, places)
