"""Reading a run's settings: YAML, command-line overrides, and errors that name the way out."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from suder.settings.config import TrainConfig
from suder.settings.fields import Section
from suder.settings.packaged import with_packaged
from suder.settings.yaml_file import Place, YamlError, read_value, read_yaml


class ConfigError(ValueError):
    """A setting that is unknown, ill-typed, missing or out of range; the message says which."""


_SHOWN = 200  # characters of a value that a message quotes
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN


def load_config(
    source: str | os.PathLike[str] | dict[str, Any], overrides: Iterable[str] = ()
) -> TrainConfig:
    """Checked settings from a YAML file (or a dict), with `section.key=value` overrides on top.

    `recipes/NAME.yaml` that is not here is the one that comes with suder.

    Raises:
        ConfigError: naming each bad key, where it stands and the nearest right name.
        FileNotFoundError: there is no such file.
    """
    places: Place = {}
    if isinstance(source, dict):
        tree, name = source, "the settings"
    else:
        path = with_packaged(Path(source))
        if not path.is_file():
            raise FileNotFoundError(f"no settings file {path}")
        name = str(path)
        try:
            tree, places = read_yaml(path)
        except YamlError as error:
            raise ConfigError(str(error)) from None
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
    paths = {name: getattr(config.data, name) for name in ("images", "prompts", "rollouts")}
    data = config.data.model_copy(
        update={name: os.path.abspath(path) for name, path in paths.items() if path is not None}
    )
    model = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
    return config.model_copy(update={"data": data, "model": model})


def differing_settings(then: Section, now: Section, place: str = "") -> Iterator[str]:
    """Each setting that is not the same in both, with its two values."""
    for key in type(then).model_fields:
        before, after = getattr(then, key), getattr(now, key)
        if isinstance(before, Section):
            yield from differing_settings(before, after, f"{place}{key}.")
        elif before != after:
            values = " and not ".join(_REPR.repr(one) for one in (before, after))
            yield f"{place}{key} is {values}"


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


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def read_override(override: str) -> tuple[tuple[str, ...], Any]:
    """`section.key=value` as the keys and the value.

    Where a setting is text, such as a path, it is taken as it stands (`output=runs/try #2`), but
    for a pair of quotes around it; elsewhere the value is YAML.
    """
    path, equals, text = override.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError(f"override `{_cut(override)}`: expected section.key=value")
    try:
        if _annotation(keys) is not str:
            return keys, read_value(text)
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        return keys, read_value(text) if quoted else text
    except YamlError as error:
        raise ConfigError(f"override `{_cut(override)}`: {error}") from None


def _apply(tree: dict[str, Any], override: str, places: Place) -> None:
    keys, value = read_override(override)
    for depth, key in enumerate(keys[:-1]):
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"override `{_cut(override)}`: `{'.'.join(keys[: depth + 1])}` is a value"
            )
        tree = inner
    tree[keys[-1]] = value
    places.update(dict.fromkeys((keys[: depth + 1] for depth in range(len(keys))), 0))


def _annotation(keys: tuple[str, ...]) -> Any:
    """The type of the setting at these keys; None if there is no such setting."""
    section: type[BaseModel] | None = TrainConfig
    for key in keys[:-1]:
        field = section.model_fields.get(key) if section else None
        section = _section(field.annotation) if field else None
    field = section.model_fields.get(keys[-1]) if section else None
    return field.annotation if field else None


def _cut(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def _explain(detail: ErrorDetails, name: str, places: Place) -> str:
    keys = tuple(str(part) for part in detail["loc"])
    dotted = _cut(".".join(keys))
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
    hint = ""
    if detail["type"] == "string_type" and isinstance(got, int | float | date):
        hint = f'; write "{got}" in quotes if that is meant'
    value = f"{_REPR.repr(got)} ({type(got).__name__})"
    return f"{where}: `{dotted}`: {message}, got {value}{hint}"


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
