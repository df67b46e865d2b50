"""The command line: one line for bad input, an example in every --help, the right exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import suder.cli
from suder.cli import COMMANDS, main
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, load_config


@pytest.fixture
def settings(make_config: Callable[..., TrainConfig], tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(make_config("rounds=1")), encoding="utf-8")
    return path


def test_train_and_resume(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "elsewhere"
    assert main(["train", str(settings), "--set", f"output={run}", "rounds=2"]) == 0
    assert (run / "model" / "model.safetensors").is_file()
    assert "start model's own weights, unchanged, are in" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    again = ["train", str(settings), "--set", f"output={run}", "--resume", "--quiet"]
    assert main([*again, "rounds=2"]) == 0
    assert "round" not in capsys.readouterr().err
    other = ["prompts.question=What is this?", "sampling.max_new_tokens=9"]
    assert main([*again, *other]) == 2
    said = capsys.readouterr().err
    assert "prompts.question is None and not 'What is this?'; rounds is 2 and not 1" in said
    assert "sampling.max_new_tokens is 6 and not 9" in said
    assert f"suder train --resume {run}" in said


def test_train_without_a_file(
    model_folder: Path,
    inputs_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    given = ["--model", str(model_folder), "--prompts", str(inputs_folder / "prompts.txt")]
    small = ["inputs_per_round=2", "candidates=2", "guard.enabled=false", "--set", "rounds=1"]
    assert main(["plan", "seed=3", *given, *small]) == 0
    given += ["--images", str(inputs_folder / "pictures"), "--output", str(run)]
    # The first word may be a setting, too.
    assert main(["train", "seed=3", *given, *small, "--quiet"]) == 0
    assert (run / "model" / "model.safetensors").is_file()
    kept = load_config(run / "config.yaml")
    assert (kept.seed, kept.rounds, kept.output) == (3, 1, str(run))
    assert kept.data.images == str(inputs_folder / "pictures")
    assert main(["train", str(run / "config.yaml"), *given, "--quiet"]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_options_stand_above_a_file(settings: Path, tmp_path: Path) -> None:
    run = tmp_path / "elsewhere"
    assert main(["train", str(settings), "--output", str(run), "--quiet", "seed=5"]) == 0
    assert load_config(run / "config.yaml").seed == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "suder train: which settings?"),
        (
            ["train", "lora.rank=3", "--images", "."],
            "without a settings file it also needs --model",
        ),
        (["train", "--resume"], "which run? `suder train --resume RUN`"),
        (["train", "--resume", ".", "--model", "m"], "but for rounds=N; leave out model=m"),
        (["train", "--resume", ".", "rounds=many"], "rounds: takes a whole number, got 'many'"),
        (["plan", "seed=1"], "without a file it also needs --model M (a folder or hub name in"),
        (["train", "nope.yaml"], "suder train: no settings file nope.yaml"),
        (["train", "SETTINGS", "optimizer.lrr=1"], "did you mean `optimizer.lr`?"),
        (["train", "SETTINGS", "data.images=nowhere"], "data.images: no folder nowhere"),
        (["train", "--resume", "."], "holds no run to resume"),
        (["train", "."], "suder train --resume ."),
        (["train", "--resume", ".", "seed=1"], "a resumed run keeps its settings"),
        (["train", "SETTINGS", "model=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line(
    settings: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([str(settings) if word == "SETTINGS" else word for word in arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sample", "--prompts", "p", "--out", "o", "--guidance", "inf"],
            "--guidance: takes",
        ),
        (
            ["sample", "--prompts", "p", "--out", "o", "--temperature", "nan"],
            "--temperature: takes",
        ),
        (["evaluate", "shapes", "--temperature", "1e999"], "--temperature: takes a finite number"),
        (["evaluate", "MODEL", "--device", "cuda:77"], "device: cuda:77 is not to be had"),
        (["evaluate", "MODEL", "--device", "gpu"], "device: there is no 'gpu'"),
        (["evaluate", "MODEL", "--device", "mps"], "device: mps is not to be had"),
        (["train", "SETTINGS", "device=cuda:77"], "device: cuda:77 is not to be had"),
        (
            ["train", "SETTINGS", "model=a/run"],
            "a/run is the folder of a run; its model",
        ),
        (
            ["sample", "--model", "a/run", "--prompts", "SETTINGS", "--out", "o"],
            "its model is a/run/model",
        ),
        (["evaluate", "~/none", "--device", "gpu"], "gpu"),
        (["report", "~/none"], "/home/someone/none holds no run"),
        (["train", "no\x1b[2J\u202eyaml"], r"no settings file no\x1b[2J\u202eyaml"),
        (["train", "SETTINGS", "seed=" + "x" * 100_000], "`seed`"),
    ],
)
def test_what_cannot_be_is_one_short_line(
    settings: Path,
    random_model_folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "a/run/model").mkdir(parents=True)
    (tmp_path / "a/run/config.yaml").touch()
    words = {"SETTINGS": str(settings), "MODEL": str(random_model_folder)}
    assert main([words.get(word, word) for word in arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "internal error" not in shown
    assert len(shown) < 5000
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nope.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_our_own_fault_says_so(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("suder.run.trainer.Trainer.run", broken)
    assert main(["train", str(settings)]) == 1
    assert "internal error, ZeroDivisionError: by zero (--debug" in capsys.readouterr().err


OVERWRITE = ("audit", "sample", "score", "pairs", "evaluate", "report")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"suder {command}" in shown.partition("example")[2]
    # One word for replacing what is there.
    assert "--force" not in shown
    assert ("--overwrite" in shown) == (command in OVERWRITE)


def test_help_config_lists_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help-config"]) == 0
    shown = capsys.readouterr().out
    for name in TrainConfig.model_fields:
        assert f"{name}:" in shown


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "demo" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    """`suder --help` should not wait seconds for torch and transformers."""
    code = (
        "import sys, suder.cli\n"
        "try: suder.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert suder.cli.COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_option_has_one_name_in_all_commands(command: str) -> None:
    subparsers = suder.cli._parser(command)._subparsers
    assert subparsers is not None
    choices = subparsers._group_actions[0].choices
    assert isinstance(choices, dict)
    names = [tuple(action.option_strings) for action in choices[command]._actions]
    writes = [one for one in names if "--out" in one or "--output" in one]
    assert writes == ([] if command == "doctor" else [("--output", "--out")])


@pytest.mark.parametrize(
    ("command", "said"),
    {
        "sample --prompts p --output o --n 0": "--n: takes a whole number from 1, got 0",
        "evaluate shapes --n -3": "--n: takes a whole number from 1, got -3",
        "experiment --jobs 0": "--jobs: takes a whole number from 1, got 0",
        "pairs r --output o --format trl --k 0": "--k: takes a whole number from 1, got 0",
        "sample --prompts p --output o --temperature 0":
            "--temperature: takes a number above 0, got 0; --greedy draws the most likely",
        "evaluate shapes --temperature -1": "--temperature: takes a number above 0, got -1",
    }.items(),
)  # fmt: skip
def test_numbers_out_of_range_are_said_by_their_option(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr().err.strip().endswith(said)


def test_guidance_is_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["sample", "--prompts", "p", "--output", "o"], ["evaluate", "shapes"]):
        assert main([*command, "--guidance", "0"]) == 2
        assert "--guidance: takes a number from 1, which is none, got 0" in capsys.readouterr().err
