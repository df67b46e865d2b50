"""`python -m benchmarks`: its files say the same, and need nothing else to be looked at."""

from __future__ import annotations

import base64
import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from benchmarks import __main__ as suite
from benchmarks.suite import ask
from benchmarks.suite.chart import chart
from benchmarks.suite.page import page, ratio_of, summary, time_of


class Reader(HTMLParser):
    """What a page refers to, its rows as text, and that every element ends."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "tr" in self.open and data.strip():
            self.rows[-1].append(data.strip())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    scripts = list(ask.SCRIPTS)
    threads = str(torch.get_num_threads())
    options = ["--rounds", "1", "--threads", threads, "--output", str(folder)]
    assert suite.main(["--quick", *options]) == 0
    return folder, scripts, json.loads((folder / "results.json").read_text())


def test_every_script_has_ours_beside_a_peer(ran):
    folder, scripts, record = ran
    assert list(record["scripts"]) == scripts
    for script in scripts:
        rows = [row for row in record["rows"] if row["script"] == script]
        beside = "limit" if script == "scoring" else "peer"  # its parts
        assert {"ours", beside} <= {row["role"] for row in rows}
        for case in {row["case"] for row in rows}:
            here = {row["name"]: row for row in rows if row["case"] == case}
            (ours, *_) = (row for row in here.values() if row["ratio"] == 1)
            assert ours["role"] == "ours"
            for row in here.values():
                assert row["ms"] > 0
                assert math.isclose(row["ratio"], row["ms"] / ours["ms"])
        assert (folder / f"{script}.png").read_bytes().startswith(b"\x89PNG")
    assert {peer["peer"] for peer in record["peers"]} >= {"liger-kernel", "trl", "torch"}
    assert not list(folder.glob("*.partial"))


def test_the_page_needs_no_other_file(ran):
    folder, scripts, record = ran
    text = (folder / "benchmarks.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    pictures = [link for link in reader.links if link.startswith("data:image/png;base64,")]
    assert len(pictures) == len(scripts)
    for script, picture in zip(scripts, pictures, strict=True):
        assert (
            base64.b64decode(picture.partition(",")[2]) == (folder / f"{script}.png").read_bytes()
        )
    assert [link for link in reader.links if link not in pictures] == [f"#{s}" for s in scripts]
    assert not re.search(r"<script|url\(|@import", text)
    shown = [tuple(row[:3]) for row in reader.rows]
    for row in record["rows"]:
        assert (row["name"], time_of(row["ms"]), ratio_of(row["ratio"])) in shown


def test_a_candidate_that_fails_is_told_and_the_others_go_on():
    from timing import Question, clock_of

    def broken():
        raise NotImplementedError("only on <GPUs>\nand more")

    question = Question("a case", {"ours": list, "theirs": broken, "bare": dict}, limits=("bare",))
    args = type("Args", (), {"cpu_time": False})
    rows = [{"script": "x", **row} for row in ask._answer(question, 1, clock_of(args))]
    assert [row["role"] for row in rows] == ["ours", "peer", "limit"]
    assert rows[1]["failed"] == "NotImplementedError: only on <GPUs>"
    assert summary(rows) == "nothing of others' beside it"
    rows[2]["mib"] = 3.0  # of one row alone
    record = {
        "processor": "a", "gpu": None, "threads": 1, "clock": "wall", "rounds": 1, "quick": True,
        "date": "", "command": "", "peers": [], "scripts": {"x": "X"}, "rows": rows,
        "build": {"version": "", "compiler": "", "isa": "", "cuda_kernel": "", "cuda_reason": ""},
    }  # fmt: skip
    text = page(record, {"x": chart(rows)})
    assert "only on &lt;GPUs&gt;" in text
    assert "3 MiB" in text
    with pytest.raises(RuntimeError, match="a case, ours: NotImplementedError"):
        list(ask._answer(question._replace(timed={"ours": broken}), 1, clock_of(args)))


def test_rows_of_a_gpu_are_beside_the_fastest_of_our_ways():
    names = {"bare product": 1.0, "ours, wgmma": 2.0, "ours, tiles": 8.0, "Liger (mean)": 5.0}
    found = [
        {"task": "forward", "shape": "8x2x3", "name": name, "ms": ms, "memory_mib": 1.0}
        for name, ms in {**names, "cut-cross-entropy": math.nan}.items()
    ]
    rows = list(ask.to_ours(found))
    assert [row.get("ratio") for row in rows] == [0.5, 1.0, 4.0, 2.5, None]
    assert [row["role"] for row in rows] == ["limit", "ours", "ours", "peer", "peer"]
    assert summary(rows) == "the fastest peer takes 2.50x our time"
