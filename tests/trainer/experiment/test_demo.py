"""The demo from one end to the other on a small random model, whole and cut off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import suder
from suder.cli import main
from suder.evaluation import side_by_side
from suder.experiment import demo
from suder.experiment.demo import DemoError, demo_config, run_demo
from suder.models import Janus
from suder.run import candidates
from suder.settings.config_file import dump_config
from suder.storage.folders import claim

N = 10


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, janus: Janus, tmp_path: Path) -> str:
    """The demo with few inputs and short captions, and the folder of a start model for it."""
    for name, value in (("PICTURES", 24), ("PROMPTS", 24), ("QUICK_N", N)):
        monkeypatch.setattr(demo, name, value)
    quick = {"inputs_per_round": 2, "candidates": 2, "sampling": {"max_new_tokens": 4}}
    quick["reward"] = {"cut_captions": "keep"}
    quick["guard"] = {"every": 1, "inputs": 2}
    monkeypatch.setattr(demo, "_QUICK", quick)
    janus.save(tmp_path / "start")
    return str(tmp_path / "start")


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was done before and must not be done again")


def test_leaves_what_it_promises_and_does_nothing_twice(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "demo"
    command = ["demo", "--quick", "--rounds", "2", "--out", str(out), "--model", small]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for name in ("report.html", "summary.json", "model"):
        assert f"{out}/{name}" in printed
    assert "improved" not in printed, "of ten items nothing is beyond the noise"
    kept = json.loads((out / "summary.json").read_text())["kept_round"]
    assert (f"weights of round {kept}" if kept else "the start model, unchanged") in printed
    assert len(list((out / "inputs" / "images").glob("*.png"))) == 24
    assert len((out / "inputs" / "prompts.txt").read_text().splitlines()) == 24
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rounds"] == 2
    told = summary["evaluation"]
    assert (told["split"], told["n"]) == ("test", N)
    for decoding in ("greedy", "sampled"):
        totals = [row for row in told[decoding] if row["category"] == "all"]
        assert [row["direction"] for row in totals] == ["generation", "understanding"]
        for row in totals:
            assert row["n"] == N
            assert row["difference"] == pytest.approx(row["tuned"] - row["base"])
            assert len(row["interval"]) == 2
    tuned = suder.load_model(out / "model")
    assert tuned.num_image_tokens == 16
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "Base against tuned" in report
    assert "Not evaluated" not in report

    monkeypatch.setattr(demo, "Trainer", forbidden)
    monkeypatch.setattr(side_by_side, "evaluate", forbidden)
    metrics = (out / "metrics.jsonl").read_bytes()
    assert main(command) == 0
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "metrics.jsonl").read_bytes() == metrics
    assert main([*command, "--seed", "5"]) == 2
    assert "other settings than asked for" in capsys.readouterr().err


def test_goes_on_after_a_cut_in_training_and_in_judging(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "demo"

    def run() -> dict[str, Any]:
        return run_demo(out, model=small, rounds=2, quick=True, say=lambda _: None)

    def cut_at(count: int, real: Callable[..., Any]) -> Callable[..., Any]:
        calls = iter(range(count))

        def some(*args: Any, **how: Any) -> Any:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(*args, **how)

        return some

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "score_phase", cut_at(1, candidates.score_phase))
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (out / "summary.json").exists()
    real = side_by_side.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(side_by_side, "evaluate", cut_at(2, real))
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (out / "report.html").exists()
    monkeypatch.setattr(demo, "Trainer", forbidden)
    rest = []
    monkeypatch.setattr(
        side_by_side, "evaluate", lambda *a, **k: (rest.append(1), real(*a, **k))[1]
    )
    assert run()["evaluation"]["n"] == N
    assert len(rest) == 2, "the start model's two evaluations were there"
    assert (out / "report.html").is_file()


def test_an_evaluation_of_other_inputs_is_not_reused(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "demo"
    run_demo(out, model=small, rounds=1, quick=True, say=lambda _: None)
    monkeypatch.setattr(demo, "QUICK_N", N - 2)
    again = run_demo(out, model=small, rounds=1, quick=True, say=lambda _: None)
    assert again["evaluation"]["n"] == N - 2
    assert again["evaluation"]["greedy"][0]["n"] == N - 2
    kept = json.loads((out / "summary.json").read_text())["evaluation"]
    assert kept["n"] == N, "the run's evaluation stays"


def test_an_evaluation_of_other_weights_is_not_reused(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_janus: Callable[..., Janus]
):
    """Of other weights under the same name, such as a model that was trained again."""
    out = tmp_path / "demo"
    run_demo(out, model=small, rounds=1, quick=True, say=lambda _: None)
    make_janus(1).save(out / "model")
    made: list[str] = []
    real = side_by_side.evaluate
    monkeypatch.setattr(
        side_by_side,
        "evaluate",
        lambda *a, **k: (made.append(k["about"]["weights"]), real(*a, **k))[1],
    )
    run_demo(out, model=small, rounds=1, quick=True, say=lambda _: None)
    assert len(made) == 2, "the start model's two evaluations stay"
    assert len(set(made)) == 1


def test_a_second_evaluation_and_a_resume_leave_the_runs_own(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of one item it says nothing: it goes beside the run's, and in its place only when asked."""
    out = tmp_path / "demo"
    summary = run_demo(out, model=small, rounds=1, quick=True, say=lambda _: None)
    items = {file: file.read_bytes() for file in (out / "evaluation").glob("*.npz")}
    assert len(items) == 4
    assert main(["evaluate", str(out), "--n", "2"]) == 0
    assert f"keeps its evaluation of {N} (test, seed 0)" in capsys.readouterr().out
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert json.loads((out / "summary.json").read_text())["evaluation"] == summary["evaluation"]
    assert {file: file.read_bytes() for file in items} == items
    beside = out / "evaluation" / "shapes.test.n2.seed0"
    assert json.loads((beside / "comparison.json").read_text())["n"] == 2
    assert len(list(beside.glob("*.npz"))) == 4
    assert main(["evaluate", str(out), "--n", "2", "--overwrite"]) == 0
    assert json.loads((out / "summary.json").read_text())["evaluation"]["n"] == 2


def test_the_full_demo_judges_a_thousand_of_each():
    assert demo.N >= 1000
    config = demo_config(Path("/somewhere"), "shapes", None, False, 3)
    assert (config.model, config.directions, config.seed) == ("shapes", "joint", 3)
    assert config.guard.enabled


def test_nothing_is_put_into_a_run_of_other_settings(small: str, tmp_path: Path):
    """Such as one of `suder train`."""
    out = tmp_path / "run"
    claim(out)
    config = demo_config(out, small, 7, True, 0)
    (out / "config.yaml").write_text(dump_config(config))
    before = sorted(out.rglob("*"))
    with pytest.raises(DemoError, match="give another --output, or delete that folder"):
        run_demo(out, model=small, rounds=2, quick=True, say=lambda _: None)
    assert sorted(out.rglob("*")) == before


def test_only_a_finished_run_is_judged(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="is no finished run"):
        side_by_side.judge_run(tmp_path)
