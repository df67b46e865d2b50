"""Reading a run's settings: YAML, command-line overrides, and errors that name the way out."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from suder.settings.config import TrainConfig


class ConfigError(ValueError):
    """A setting that is unknown, ill-typed, missing or out of range; the message says which."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads `1e-4` as a number (YAML 1.1 wants `1.0e-4`)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)

Place = dict[tuple[str, ...], int]  # key path -> line it stands on, from 1


def load_config(
    source: str | os.PathLike[str] | dict[str, Any], overrides: Iterable[str] = ()
) -> TrainConfig:
    """Checked settings from a YAML file (or a dict), with `section.key=value` overrides on top.

    Raises:
        ConfigError: naming each bad key, where it stands and the nearest right name.
        FileNotFoundError: there is no such file.
    """
    places: Place = {}
    if isinstance(source, dict):
        tree, name = source, "the settings"
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no settings file {path}")
        name = str(path)
        tree = _read_yaml(path, places)
    tree = _copy(tree)
    for override in overrides:
        _apply(tree, override, places)
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail, name, places) for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def dump_config(config: TrainConfig) -> str:
    """The resolved settings as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Paths that still hold when a run is resumed from another folder."""
    data = config.data.model_copy(
        update={
            "images": os.path.abspath(config.data.images),
            "prompts": os.path.abspath(config.data.prompts),
        }
    )
    model = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
    return config.model_copy(update={"data": data, "model": model})


def describe_config(section: type[BaseModel] = TrainConfig, indent: str = "") -> str:
    """Every setting with its default and meaning, laid out as the YAML file it would be."""
    lines = []
    for key, field in section.model_fields.items():
        if (inner := _section(field.annotation)) is not None:
            lines += [f"{indent}{key}:", describe_config(inner, indent + "  ")]
            continue
        if field.default is PydanticUndefined:
            value = "..."
        else:
            dumped = yaml.safe_dump(field.default, default_flow_style=True)
            value = dumped.removesuffix("...\n").strip()
        lines.append(f"{indent}{key}: {value}".ljust(30) + f"  # {field.description}")
    return "\n".join(lines)


def _read_yaml(path: Path, places: Place) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            loader = _Loader(file)
            node = loader.get_single_node()
            tree = {} if node is None else loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(tree).__name__}")
    if node is not None:
        _note_lines(node, (), places, path)
    return tree


def _note_lines(node: yaml.Node, at: tuple[str, ...], places: Place, path: Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*at, str(key.value))
        line = key.start_mark.line + 1
        if here in places:
            raise ConfigError(
                f"{path}: `{'.'.join(here)}` is set twice, lines {places[here]} and {line}"
            )
        places[here] = line
        _note_lines(value, here, places, path)


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _apply(tree: dict[str, Any], override: str, places: Place) -> None:
    path, equals, text = override.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"override `{override}`: expected section.key=value")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override `{override}`: not a YAML value ({error})") from None
    for depth, key in enumerate(keys[:-1]):
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"override `{override}`: `{'.'.join(keys[: depth + 1])}` is a value")
        tree = inner
    tree[keys[-1]] = value
    places.update(dict.fromkeys((keys[: depth + 1] for depth in range(len(keys))), 0))


def _explain(detail: ErrorDetails, name: str, places: Place) -> str:
    keys = tuple(str(part) for part in detail["loc"])
    dotted = ".".join(keys)
    line = places.get(keys)
    where = name if line is None else "the override" if line == 0 else f"{name}, line {line}"
    if detail["type"] == "extra_forbidden":
        near = _nearest(dotted)
        hint = f"; did you mean `{near}`?" if near else "; `suder train --help-config` lists all"
        return f"{where}: unknown setting `{dotted}`{hint}"
    if detail["type"] == "missing":
        return f"{where}: `{dotted}` is missing, and it has no default"
    if not keys:
        return f"{where}: {detail['msg'].removeprefix('Value error, ')}"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    got = detail["input"]
    return f"{where}: `{dotted}`: {message}, got {got!r} ({type(got).__name__})"


def _nearest(dotted: str) -> str | None:
    """The known setting closest to an unknown one, wherever in the tree it lives."""
    known = list(_paths(TrainConfig))
    leaf = dotted.rpartition(".")[2]
    siblings = [path for path in known if path.rpartition(".")[0] == dotted.rpartition(".")[0]]
    for path in known:
        if path.rpartition(".")[2] == leaf:  # the right name in the wrong section
            return path
    for pool in (siblings, known):
        leaves = {path.rpartition(".")[2]: path for path in reversed(pool)}
        for found in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6):
            return leaves[found]
    return next(iter(difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)), None)


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        yield prefix + key
        if (inner := _section(field.annotation)) is not None:
            yield from _paths(inner, f"{prefix}{key}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds, or None if it holds a value."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None
