"""The columns of a table of candidates, one row each; docs/rollouts.md tells people what they are.

Parquet, because `datasets`, pandas and DuckDB read it by themselves; through pyarrow, which comes
with `datasets` and which only those who ask for such files need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Name, type in Arrow's words, and whether a file that people made themselves may lack it.
COLUMNS: tuple[tuple[str, str, bool], ...] = (
    ("run", "string", False),
    ("round", "int64", False),
    ("direction", "string", False),
    ("group", "int64", False),
    ("candidate", "int64", False),
    ("input", "string", False),
    ("digest", "string", True),
    ("question", "string", True),
    ("system_prompt", "string", True),
    ("text", "string", False),
    ("tokens", "list<int32>", False),
    ("logprob", "list<float>", True),
    ("finished", "bool", False),
    ("reward", "float", False),
    ("advantage", "float", True),
    ("valid", "bool", False),
    ("scorer", "string", True),
    ("seed", "int64", True),
    ("temperature", "double", True),
    ("top_k", "int64", True),
    ("top_p", "double", True),
    ("guidance", "double", True),
    ("model", "string", True),
    ("model_digest", "string", True),
)
GROUP = ("run", "round", "direction", "group")  # equal in all candidates of one input
INSTALL = "pip install 'suder[parquet]'"


def arrow(name: str = "pyarrow") -> Any:
    """pyarrow, or a module of it or of `datasets`, imported when it is needed.

    Raises:
        ModuleNotFoundError: with the command that installs it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"rollouts as Parquet need {name.partition('.')[0]}: {INSTALL}"
        ) from error


def schema() -> Any:
    """The columns as a `pyarrow.Schema`."""
    pa = arrow()
    plain = {
        "string": pa.string(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "float": pa.float32(),
        "double": pa.float64(),
        "list<int32>": pa.list_(pa.int32()),
        "list<float>": pa.list_(pa.float32()),
    }
    return pa.schema([(name, plain[kind]) for name, kind, _ in COLUMNS])
