"""The report says what was measured, no more, in one file that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from suder.cli import main
from suder.evaluation.compare import compare, headline
from suder.evaluation.result import Evaluation, Items
from suder.guard.strip import Strip
from suder.report import curves, drift, write_report
from suder.report.curves import DIRECTIONS
from suder.report.gallery import PICTURES
from suder.report.strips import LOOKS
from suder.report.tables import verdict
from suder.run.looks import save_strip
from suder.storage.files import write_json, write_jsonl, write_text

N = 40
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that every tag is closed in its turn, and collects text, links and sources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.scrolls: list[bool] = []
        self.too_wide: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        wide = tag == "table" or ("class", "chart") in attrs
        if wide and not self.scrolls[-1]:
            self.too_wide.append(tag)
        if tag not in VOID:
            self.open.append(tag)
            self.scrolls.append(("class", "wide") in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.scrolls.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data + " "


def items(correct: np.ndarray, seed: int, captions: bool) -> Items:
    rng = np.random.default_rng(seed)
    return Items(
        inputs=[f"input <b{i}> & co" for i in range(N)],
        answers=[f"answer {seed} <b>{i}</b>" for i in range(N)] if captions else [],
        categories=["single" if i % 2 else "two_objects" for i in range(N)],
        clusters=[f"cluster {i // 2}" for i in range(N)],
        judged={
            "correct": correct,
            **({} if captions else {"shapes": correct, "binding": correct}),
        },
        pictures=rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8),
    )


def evaluation(right: int, seed: int, greedy: bool) -> Evaluation:
    correct = np.arange(N) < right
    settings = {"task": "shapes/test", "seed": 0, "greedy": greedy}
    return Evaluation(items(correct, seed, False), items(correct, seed + 1, True), settings)


def make_run(folder: Path, base: int | None, tuned: int = 0, finished: bool = True) -> Path:
    """A run's folder as the trainer leaves it; `base` and `tuned` of 40 items right."""
    (folder / "data").mkdir(parents=True)
    write_text(
        folder / "config.yaml", "model: shapes\ndirections: joint\nobjective:\n  name: grpo\n"
    )
    rows: list[dict[str, Any]] = [{"round": 0, "guard/kl/generation": 0.0}]
    for at in range(1, 31):
        row: dict[str, Any] = {"round": at}
        for direction in ("generation", "understanding"):
            row |= {f"reward/{direction}": -2 + at / 30, f"kl/{direction}": at / 300}
            row |= {f"grad_norm/{direction}": 0.5, f"entropy/{direction}": None}
        if at % 10 == 0:
            row |= {"guard/kl/generation": at / 300, "guard/gain/generation": 0.01}
        rows.append(row)
    write_jsonl(folder / "metrics.jsonl", rows)
    write_json(folder / "versions.json", {"torch": "9.9.9"})
    dropped = [{"input": f"<p{i}>.png", "why": "unreadable"} for i in range(25)]
    write_jsonl(
        folder / "data" / "dropped.jsonl", [*dropped, {"round": 3, "input": "x", "why": "y"}]
    )
    if finished:
        summary = {"rounds": 30, "kept_round": 20, "seconds": 60.0, "stopped": "image KL over 0.3"}
        write_json(folder / "summary.json", {**summary, "guard": {"rollbacks": 1, "declines": 2}})
    if base is not None:
        for greedy in (True, False):
            name = "greedy" if greedy else "sampled"
            evaluation(base, 1, greedy).save(folder / "evaluation" / f"base.{name}.npz")
            evaluation(tuned, 7, greedy).save(folder / "evaluation" / f"tuned.{name}.npz")
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A run with 20 of 40 right before and 30 after, and its page."""
    folder = make_run(tmp_path_factory.mktemp("judged") / "run", 20, 30)
    return folder, read(folder)


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(make_run(tmp_path_factory.mktemp("unjudged") / "run", None))


def read(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_needs_no_other_file_and_no_network(judged: tuple[Path, Page]):
    folder, page = judged
    assert len(page.sources) > 50
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in text
    assert "url(" not in text
    assert "<script" not in text
    assert not list(folder.glob("*.partial"))


def test_what_is_wider_than_a_phone_scrolls_by_itself(judged: tuple[Path, Page]):
    assert judged[1].too_wide == []


@pytest.mark.parametrize("rounds", [1, 3])
def test_no_diagram_counts_parts_of_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
):
    folder = make_run(tmp_path / "run", None)
    names = [f"guard/{one}/{way}" for one in ("kl", "gain", "length") for way in DIRECTIONS]
    rows = [{"round": at, "reward/generation": 1.0, **dict.fromkeys(names, 0.5)}
            for at in range(rounds + 1)]  # fmt: skip
    write_jsonl(folder / "metrics.jsonl", rows)
    ticks = []

    def keep(figure: Any) -> str:
        figure.canvas.draw()
        for axis in figure.axes:
            ticks.append([text.get_text() for text in axis.get_xticklabels()])
        return ""

    for module in (curves, drift):
        monkeypatch.setattr(module, "png", keep)
    write_report(folder)
    assert len(ticks) > 6
    found = {text.replace("\N{MINUS SIGN}", "") for one in ticks for text in one}
    assert all(text.isdecimal() for text in found), found


def test_numbers_are_those_of_the_comparison(judged: tuple[Path, Page]):
    page = judged[1]
    row = headline(compare(evaluation(20, 1, True), evaluation(30, 7, True)), "generation")
    low, high = row["interval"]
    assert "50.0% → 75.0%" in re.sub(r"\s*→\s*", " → ", page.words)
    assert f"+25.0 points  (95% interval {100 * low:+.1f} to {100 * high:+.1f})" in page.words
    for words in ("round 20 of 30", "rolled the run back 1 time.", "image KL over 0.3"):
        assert words in page.words
    assert "9.9.9" in page.words


@pytest.mark.parametrize(
    ("base", "tuned", "words"),
    [
        (10, 30, "Drawing improved beyond the noise"),
        (30, 10, "Drawing got worse, beyond the noise"),
        (20, 21, "Drawing did not change by more than the noise"),
        (20, 20, "captioning did not change by more than the noise"),
    ],
)
def test_verdict_claims_what_the_interval_does(base: int, tuned: int, words: str):
    assert words in verdict(compare(evaluation(base, 1, True), evaluation(tuned, 7, True)))


def test_pictures_and_captions_are_the_models_own_and_marked(judged: tuple[Path, Page]):
    page = judged[1]
    drawn = []
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            if picture.size == (32, 32):
                drawn.append(np.asarray(picture))
    before, after = evaluation(20, 1, False).generation, evaluation(30, 7, False).generation
    for item in range(PICTURES):
        np.testing.assert_array_equal(drawn[2 * item], before.pictures[item])
        np.testing.assert_array_equal(drawn[2 * item + 1], after.pictures[item])
    assert page.words.count("✓ base") == 20
    assert page.words.count("✗ base") == PICTURES - 20
    assert page.words.count("✓ tuned") == PICTURES
    assert "input <b5> & co" in page.words
    assert "answer 2 <b>5</b>" in page.words
    assert "answer 8 <b>5</b>" in page.words


def test_dropped_inputs_are_counted_and_named(unjudged: Page):
    page = unjudged
    assert "Inputs before training: 25; candidates and inputs during it: 1." in page.words
    assert "<p0>.png" in page.words
    assert "and 6 more" in page.words


def test_a_run_without_evaluation_says_so(unjudged: Page):
    page = unjudged
    assert "Not evaluated: nothing on this page says whether the model got better" in page.words
    assert "Base against tuned" not in page.words
    assert "improved beyond" not in page.words


def test_an_unfinished_run_says_so(tmp_path: Path):
    assert "This run is not finished" in read(make_run(tmp_path / "run", None, 0, False)).words
    bare = tmp_path / "bare"
    bare.mkdir()
    write_text(bare / "config.yaml", "model: shapes\n")
    page = read(bare)
    assert "This run is not finished" in page.words
    assert "The guard was off" in page.words


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = make_run(tmp_path / "run", 20, 30)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def make_looks(folder: Path, looks: int) -> None:
    """Of a run: pictures of one grey each, brighter by the look; captions that change half-way."""
    shown = [base64.b64encode(png(200)).decode()] * 2
    for number in range(looks):
        pictures = np.full((2, 8, 8, 3), number, dtype=np.uint8)
        rewards: Any = {"generation": (-3.5, math.nan), "understanding": (-1.25, math.nan)}
        captions = ("a <b>dog</b>", "a dog" if number < looks // 2 else "a cat")
        save_strip(folder, number, Strip(pictures, captions, rewards))
    write_json(folder / "looks" / "inputs.json", {"prompts": ["x & y", "z"], "pictures": shown})


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def level(source: str) -> int:
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    return int(np.asarray(picture)[0, 0, 0])


def test_the_same_inputs_over_the_rounds(tmp_path: Path):
    """A row a prompt, a column a look, in their order; a caption once for all rounds it stood."""
    folder = make_run(tmp_path / "run", None)
    before = read(folder).sources
    make_looks(folder, 30)
    page = read(folder)
    drawn = [one for one in page.sources if one not in before]
    assert len(drawn) == 2 * LOOKS + 2
    assert [level(one) for one in drawn[:LOOKS]] == sorted(level(one) for one in drawn[:LOOKS])
    assert (level(drawn[0]), level(drawn[LOOKS - 1])) == (0, 29)
    assert [level(one) for one in drawn[-2:]] == [200, 200]
    words = " ".join(page.words.split())
    assert "x & y" in words
    assert "0 to 29 a <b>dog</b> -1.25" in words
    assert re.search(r"0 to \d+ a dog \d+ to 29 a cat", words)
    assert "-3.50" in words
    assert "Reward of pictures of all held-out inputs at round 20, against the start's" in words


def test_the_shapes_worlds_verdicts_are_of_its_runs_alone(tmp_path: Path):
    folder = make_run(tmp_path / "run", 20, 30)
    looks = folder / "looks" / "inputs.json"
    make_looks(folder, 3)
    write_json(looks, {"prompts": ["a red circle", "two blue squares"], "pictures": []})
    assert "Base against tuned" in read(folder).words
    write_json(looks, {"prompts": ["a red circle", "a cat on a mat"], "pictures": []})
    words = read(folder).words
    assert "Base against tuned" not in words
    assert "whose prompts are not this run's" in words
    assert "Pictures, before and after" not in words


def test_looks_that_are_done_again_are_not_shown(tmp_path: Path):
    """A run that was killed has files of looks beyond its last round."""
    folder = make_run(tmp_path / "run", None)  # 30 rounds
    make_looks(folder, 6)
    (folder / "looks" / "000005.json").rename(folder / "looks" / "000031.json")
    assert "a <b>dog</b>" in read(folder).words
    assert "31" not in re.findall(r"\d+ to (\d+)", read(folder).words)


def test_curves_of_what_no_reward_contains(tmp_path: Path):
    """A panel for each statistic that was logged, and none without."""
    folder = make_run(tmp_path / "run", None)
    plain = read(folder)
    assert "What no reward contains" not in plain.words
    same = {"guard/kl/generation": 0.0, "guard/length/understanding": 7.0}
    rows = [{"round": at, **same, "guard/dark/generation": at / 100} for at in (0, 10, 20)]
    rows[0]["guard/dark_band/generation"] = 0.05
    write_jsonl(folder / "metrics.jsonl", rows)
    page = read(folder)
    assert "What no reward contains" in page.words
    assert len(page.sources) == len(plain.sources)  # one more here, and no training curves
