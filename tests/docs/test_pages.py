"""Every code block of the README and of docs/ runs: Python as it stands, commands by the real CLI.

A block's language says what is done with it: `python` runs, all of a page in one namespace; `pycon`
is a doctest; each line of `bash`, or of an indented block, and each behind a `$` of `console`, is a
command, and what stands below it is what it prints, with `...` for anything; `text` is no code.
Runs are made short: SHORT. What is not run stands in NOT_RUN, and is parsed all the same, and in
OTHERS.
"""

from __future__ import annotations

import doctest
import fnmatch
import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import suder
import suder.cli
import suder_ext
from suder.cli import main
from suder.cli.settings_given import settings_given
from suder.settings import config_file
from tests.conftest import ROOT
from tests.docs import stand_ins
from tests.docs.blocks import Block, Command, blocks, commands

PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

# Settings put behind those of every run of a page. A guard of so few inputs says nothing.
SHORT = ("device=cpu", "dtype=float32", "rounds=1", "inputs_per_round=2", "candidates=2",
         "guard.enabled=false", "checkpoint.keep_rounds=3", "sampling.max_new_tokens=8",
         "reward.cut_captions=keep", "optimizer.warmup_rounds=0")  # fmt: skip
LONGER = 2
# Options put behind those of a command, and exit codes other than 0.
OPTIONS = {
    "suder audit *": ("--inputs", "4", "--candidates", "2", "--shuffles", "2", "--overwrite"),
    "suder doctor *": ("--checks", "words"),
    "suder sample *": ("--max-new-tokens", "8", "--overwrite"),
    "suder score *": ("--overwrite",),
}

LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NETWORK = "needs the network"
GPUS = "needs several GPUs"
CHECKPOINT = "needs a published checkpoint"
MINUTES = "takes minutes; has tests of its own"
SUITE = "needs the suite's own files; tests/trainer/evaluation draws of files like them"
# Commands of suder that are parsed and not run: page, pattern, why.
NOT_RUN = (
    ("*", "suder demo*", MINUTES),
    ("*", "suder experiment*", MINUTES),
    ("*", "suder pretrain*", MINUTES),
    ("docs/benchmarks.md", "suder evaluate *", SUITE),
)
# Commands that print other numbers here: page, pattern, why.
NOT_COMPARED = (
    (
        "README.md",
        "suder *",
        "the page shows 96 pictures and four rounds, and the audit's main lines",
    ),
    ("docs/rollouts.md", "suder *", "the page shows a run of four rounds on 96 pictures"),
)
# Programs that are not ours: pattern, why they are not run.
OTHERS = (
    ("pip install*", NETWORK),
    ("CMAKE_ARGS=* pip install*", "compiles for minutes"),
    ("hf download *", NETWORK),
    ("lmms_eval *", NETWORK),
    ("git clone *", NETWORK),
    ("cat T2I-CompBench/*", NETWORK),
    ("accelerate launch *", GPUS),
    ("torchrun *", GPUS),
    ("python -c *", "the other program of its page, in a process of its own"),
    ("python benchmarks/*", MINUTES),
    ("python -m benchmarks*", MINUTES),
    ("benchmarks/gpu_check.sh *", "needs a GPU"),
    ("make *", "sets up, trains or tests everything; the target is looked up"),
    ("tensorboard *", "a server"),
)
# Blocks of Python that are compiled and not run: page, something in the block, why.
COMPILED = (
    ("docs/from-verl.md", "import verl", "verl takes a GPU"),
    ("docs/from-liger.md", "import liger_kernel", "Liger takes a GPU"),
)


def _reason(table: tuple[tuple[str, ...], ...], *given: str) -> str:
    for *patterns, reason in table:
        if all(fnmatch.fnmatchcase(g, p) for g, p in zip(given, patterns, strict=True)):
            return reason
    return ""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")  # of the hosts' own libraries
def test_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = blocks(text)
    if not found:
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(suder, "load_config", _short, raising=False)
    threads = torch.get_num_threads()
    namespace = stand_ins.make(page, tmp_path, found)
    try:
        for block in found:
            _run(page, block, namespace, capsys)
    finally:
        torch.set_num_threads(threads)


def _run(page: str, block: Block, namespace: dict[str, Any], capsys: Any) -> None:
    where = f"{page}:{block.line}"
    if block.language == "python":
        code = compile("\n" * (block.line - 1) + block.text, page, "exec")
        if not any(p == page and word in block.text for p, word, _ in COMPILED):
            exec(code, namespace)
    elif block.language == "pycon":
        told = doctest.DocTestParser().get_doctest(block.text, namespace, page, page, block.line)
        runner = doctest.DocTestRunner(optionflags=LOOSELY, verbose=False)
        said: list[str] = []
        runner.run(told, out=said.append, clear_globs=False)
        assert not runner.failures, "".join(said)
        namespace.update(told.globs)
    elif block.language in ("bash", "console"):
        for command in commands(block):
            _command(page, command, capsys)
    else:
        assert block.language in ("text", "yaml"), (
            f"{where}: {block.language or 'no language'}: say what the block is"
        )


def _command(page: str, command: Command, capsys: Any) -> None:
    where = f"{page}:{command.line}: {command.text}"
    words = command.words
    if words[0] != "suder":
        assert _reason(OTHERS, command.text), f"{where}: no program of OTHERS"
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), where
        if ("-m", "suder") in itertools.pairwise(words):
            _parse(words[words.index("suder") + 1 :], where)
        for word in words:
            if word.startswith("benchmarks/"):
                assert (ROOT / word).is_file(), where
        return
    if _reason(NOT_RUN, page, command.text):
        _parse(words[1:], where)
        return
    capsys.readouterr()
    # What is told to fail does so before any work.
    failed = any(line.startswith(f"suder {words[1]}") for line in command.prints.splitlines())
    more = next((more for p, more in OPTIONS.items() if fnmatch.fnmatchcase(command.text, p)), ())
    if words[1] in ("train", "plan") and "--resume" not in words:
        more = SHORT
    if "--resume" in words:  # a run made longer, by one round
        words = [f"rounds={LONGER}" if word.startswith("rounds=") else word for word in words]
    code = main(words[1:] if failed else [*words[1:], *more])
    captured = capsys.readouterr()
    said = captured.out + captured.err
    if words[1] in (
        "doctor",
        "audit",
    ):  # which find few inputs wanting
        assert code in (0, 1), f"{where}\n{said}"
    else:
        assert (code != 0) == failed, f"{where}\n{said}"
    if command.prints and not _reason(NOT_COMPARED, page, command.text):
        _compare(command.prints, said, where)


def _compare(expected: str, said: str, where: str) -> None:
    # Before and behind it there may be more: what memory a run will hold, bars.
    same = doctest.OutputChecker().check_output(f"...{expected}...", said, LOOSELY)
    assert same, f"{where} printed\n{said}"


def _short(source: Any, changes: Any = ()) -> Any:
    return config_file.load_config(source, [*changes, *SHORT])


def _parse(words: list[str], where: str) -> None:
    """By the real parser; a run's settings are read, too."""
    asked: list[Any] = []
    second = {name for names in suder.cli.SECOND.values() for name in names.values()}
    with pytest.MonkeyPatch.context() as patch:
        for name in (*suder.cli.COMMANDS, *second):
            module = importlib.import_module(f"suder.cli.{name}")
            patch.setattr(module, "run", lambda args: asked.append(args) or 0)
        assert main(words) == 0, where
    (args,) = asked
    if hasattr(args, "changes") and not getattr(args, "resume", False):
        file, changes = settings_given(args)
        config_file.load_config({"output": "x"} if file is None else file, changes)


def test_every_op_and_page_is_told() -> None:
    ops, api, told = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for name in ("ops", "api-suder-ext", "api-suder")
    )
    assert {name for name in suder_ext.functional.__all__ if f"{name}(" not in ops} == set()
    names = set(suder_ext.__all__) - {"__version__", "functional", "reference"}
    assert {name for name in names if f"::: suder_ext.{name}\n" not in api} == set()
    names = set(suder.__all__) - {"__version__", "Janus"}
    assert {name for name in names if f"::: suder.{name}\n" not in told} == set()
