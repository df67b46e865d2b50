"""Somebody else's run folder: the page shows what can be read, as text, and nothing in it acts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suder.cli import main
from suder.evaluation.statistics import Interval
from suder.report import curves, gallery, write_report
from suder.storage.files import write_json, write_jsonl, write_text
from tests.trainer.report.test_report import evaluation, make_looks, make_run

SCRIPT = "<script>document.title='hit'</script>"
HOSTILE = SCRIPT + "<img src=x onerror=document.title='hit'>'\"></b>"
HIDDEN = "\x1b[2J\u202egnp.exe\x00"


ATTRIBUTES = ("src", "class", "title", "alt", "lang", "colspan", "open")


class Elements(HTMLParser):
    """What a browser would make of the page: elements with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, ...]] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, *sorted(name for name, _ in attrs)))
        for name, value in attrs:
            assert (
                name in ("src", "class", "title", "alt", "lang", "colspan", "open") or tag == "meta"
            )
            assert name != "src" or (value or "").startswith("data:image/png;base64,")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the diagrams, which take most of a page's time, and with plain intervals."""

    def interval(values: Any, clusters: Any, **_: Any) -> Interval:
        return Interval(float(np.mean(values)), 0.0, 1.0, len(values), 1)

    def paired(base: Any, tuned: Any, clusters: Any, **_: Any) -> Interval:
        return interval(np.subtract(tuned, base, dtype=float), clusters)

    monkeypatch.setattr("suder.evaluation.compare.mean_interval", interval)
    monkeypatch.setattr("suder.evaluation.compare.paired_interval", paired)
    monkeypatch.setattr(gallery, "PICTURES", 2)
    monkeypatch.setattr(gallery, "CAPTIONS", 2)
    for name in ("training_curves", "guard_curves", "category_bars"):
        monkeypatch.setattr(curves, name, lambda _: "data:image/png;base64,")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, ...]]:
    """The elements of an honest run's page, one with a note among them."""
    run = make_run(tmp_path_factory.mktemp("honest") / "run", 20, 30)
    (run / "versions.json").write_text('{"torch": "9"}')
    with (run / "metrics.jsonl").open("a") as file:
        file.write("torn")
    return Elements(write_report(run).read_text(encoding="utf-8")).found


def change_json(name: str, *keys: str | int) -> Callable[[Path, Any], None]:
    def change(run: Path, value: Any) -> None:
        tree = inner = json.loads((run / name).read_text())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        write_json(run / name, tree)

    return change


def change_row(name: str, key: str) -> Callable[[Path, Any], None]:
    def change(run: Path, value: Any) -> None:
        rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
        rows[-1][key] = value
        write_jsonl(run / name, rows)

    return change


def change_settings(line: str) -> Callable[[Path, Any], None]:
    return lambda run, value: write_text(run / "config.yaml", f"{line}: {json.dumps(value)}\n")


def change_items(field: str) -> Callable[[Path, Any], None]:
    def change(run: Path, value: Any) -> None:
        (run / "summary.json").unlink()  # its comparison would be shown in place of theirs
        for side in ("base", "tuned"):
            one = evaluation(20, 1, True)
            for items in (one.generation, one.understanding):
                values = getattr(items, field)
                if values and isinstance(value, str):
                    values[:] = [value] * len(values)
            one.save(run / "evaluation" / f"{side}.greedy.npz")

    return change


SUMMARY = ("rounds", "kept_round", "stopped", "seconds", "guard", "evaluation", "other")
JUDGED = ("direction", "category", "n", "clusters", "base", "base_interval", "tuned",
          "tuned_interval", "difference", "interval")  # fmt: skip
FIELDS: dict[str, Callable[[Path, Any], None]] = {
    **{f"summary {key}": change_json("summary.json", key) for key in SUMMARY},
    **{
        f"guard {key}": change_json("summary.json", "guard", key)
        for key in ("rollbacks", "declines", "note")
    },
    **{
        f"evaluation {key}": change_json("summary.json", "evaluation", key)
        for key in ("split", "n", "world", "greedy", "sampled")
    },
    **{
        f"judged {key}": change_json("summary.json", "evaluation", "greedy", 1, key)
        for key in JUDGED
    },
    "versions": change_json("versions.json", "torch"),
    **{
        f"dropped {key}": change_row("data/dropped.jsonl", key)
        for key in ("round", "input", "why")
    },
    **{
        f"metrics {key}": change_row("metrics.jsonl", key)
        for key in ("round", "reward/generation", "guard/kl/generation", "new")
    },
    **{
        f"items {key}": change_items(key)
        for key in ("inputs", "answers", "categories", "clusters")
    },
    "model": change_settings("model"),
    "objective": change_settings("objective"),
    "directions": change_settings("directions"),
    "kl_limit": change_settings("guard: {kl_limit: 1}\nx"),
}  # fmt: skip


def judged_run(folder: Path) -> Path:
    run = make_run(folder, 20, 30)
    names = {"generation": "drawn", "understanding": "told"}
    rows = [
        {"direction": direction, "category": category, "n": 40, "clusters": 20, "base": 0.5,
         "base_interval": [0.4, 0.6], "tuned": 0.75, "tuned_interval": [0.6, 0.9],
         "difference": 0.25, "interval": [0.1, 0.4]}
        for direction in names for category in ("all", "single")
    ]  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    summary["guard"]["note"] = "a note"
    told = {"world": "shapes", "split": "test", "n": 40, "seed": 0}
    write_json(
        run / "summary.json", summary | {"evaluation": {**told, "greedy": rows, "sampled": []}}
    )
    return run


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("field", FIELDS)
def test_no_value_of_a_field_is_more_than_text(
    tmp_path: Path, field: str, expected: set[tuple[str, ...]]
) -> None:
    """Markup, what hides, and every wrong type, in each field of each file."""
    run = judged_run(tmp_path / "run")
    values = [HOSTILE, HIDDEN, 10**400, -1, True, None, 1e308, [HOSTILE], {HOSTILE: HOSTILE}]
    for value in values[: 1 if field.startswith("items") else None]:
        FIELDS[field](run, value)
        page = write_report(run).read_text(encoding="utf-8")
        elements = Elements(page)
        assert elements.found <= expected
        assert not set(HIDDEN) & set(page) - set("[2Jgnp.exe")
        assert "Settings and versions" in elements.text


def test_all_fields_at_once_with_the_diagrams(
    tmp_path: Path, expected: set[tuple[str, ...]]
) -> None:
    run = judged_run(tmp_path / HOSTILE.replace("/", "|"))
    for field in ("judged category", "guard note", "summary stopped", "dropped input", "versions",
                  "evaluation split", "metrics new"):  # fmt: skip
        FIELDS[field](run, HOSTILE)
    FIELDS["judged category"](run, r"$\frac{" + HOSTILE)
    elements = Elements(write_report(run).read_text(encoding="utf-8"))
    assert elements.found <= expected
    assert elements.text.count(SCRIPT) >= 4


def cut(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) // 2])

    return damage


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None


def bomb(shape: str, kind: str = "<f8") -> bytes:
    """An .npz whose one array declares what it does not hold."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        file.writestr("settings.npy", body)
    return buffer.getvalue()


def zeros(count: int) -> bytes:
    """A small file that unpacks to `count` bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(9):
            file.writestr(f"{number}.npy", b"\0" * (count // 9))
    return buffer.getvalue()


def shapes_of(**arrays: Any) -> Callable[[Path], None]:
    """The evaluation with other arrays in it than it had."""

    def damage(run: Path) -> None:
        path = run / "evaluation/base.greedy.npz"
        with np.load(path) as file:
            whole = {key: file[key] for key in file.files}
        changed = {key.replace("__", "/"): value for key, value in arrays.items()}
        np.savez_compressed(path, **whole | changed)

    return damage


NPZ = "evaluation/base.greedy.npz"
DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (cut("summary.json"), "summary.json: left out, no JSON"),
    (put("metrics.jsonl", b'{"round": 1}\n{"rou'), "line 2: left out, it is cut off"),
    (put("metrics.jsonl", b'{"round": 1}\n{\n{"round": 2}\n'), "jsonl, line 2: left out, no"),
    (put("metrics.jsonl", b'{"round": 1}\n[]\n3\n'), "line 2: left out, expected an object"),
    (put("metrics.jsonl", b'{"round": 1, "x": "y"}\n'), "line 1: `x` left out, it is no number"),
    (put("metrics.jsonl", b"\xff\xfe\n" + b"[" * 90_000 + b"\n"), "line 2: left out, no JSON"),
    (put("metrics.jsonl", b'{"round": ' + b"1" * 9000 + b"}\n"), "line 1: left out"),
    (put("metrics.jsonl", b"x" * (1 << 21) + b"\n"), "line 1: left out, 2097153 bytes"),
    (put("data/dropped.jsonl", b'{"input": 3, "why": "x"}\n'), "line 1: left out, `input`"),
    (put("summary.json", b"[1]"), "expected an object, got list"),
    (put("summary.json", b'{"rounds": NaN, "seconds": "x"}'), "left out, `seconds`"),
    (put("summary.json", b'{"rounds": "y", "seconds": "x"}'), "left out, `seconds`"),
    (put("summary.json", b'{"rounds": "y", "stopped": 1}'), "summary.json: left out, `rounds`"),
    (put("config.yaml", b"a: [\n"), "not readable YAML"),
    (put("config.yaml", b"a: &a [*a]\n"), "holds itself"),
    (put("config.yaml", b"\xff"), "not UTF-8"),
    (put("versions.json", b"\x00" * (1 << 21)), "versions.json: cut at"),
    (cut(NPZ), "is damaged"),
    (put(NPZ, b""), "is damaged"),
    (put(NPZ, bomb("(346000000000,)")), "declares float64"),
    (put(NPZ, bomb("(-1,)")), "declares the shape (-1,)"),
    (put(NPZ, bomb("()", "|O")), "declares object"),
    (put(NPZ, zeros(1 << 29)), "at most 64 of 268,435,456 are read"),
    (shapes_of(generation__judged__correct=np.ones(7, bool)), "of 7 items"),
    (shapes_of(generation__judged__correct=np.ones(40)), "correct is float64"),
    (shapes_of(generation__pictures=np.zeros((40, 8, 8, 4), np.uint8)), "pictures is uint8"),
    (shapes_of(generation__inputs=np.arange(40)), "generation/inputs is int64"),
    (shapes_of(settings=np.array("[]")), "its settings are []"),
    (shapes_of(settings=np.array('{"task": "x"}')), "it has no 'seed'"),
]  # fmt: skip


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("damage", "note"), DAMAGE, ids=[note for _, note in DAMAGE])
def test_what_is_damaged_is_named_and_the_rest_is_shown(
    tmp_path: Path, damage: Callable[[Path], None], note: str
) -> None:
    run = make_run(tmp_path / "run", 20, 30)
    damage(run)
    page = Elements(write_report(run).read_text(encoding="utf-8"))
    assert note in page.text
    assert "Settings and versions" in page.text
    assert "Captions, before and after" in page.text  # of the sampled ones, if not the greedy


@pytest.mark.usefixtures("plain")
def test_many_notes_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", None)
    (run / "metrics.jsonl").write_text("x\n" * 5000)
    page = write_report(run).read_text(encoding="utf-8")
    assert "and 4980 more" in page
    assert len(page) < 100_000


@pytest.mark.usefixtures("plain")
def test_only_a_report_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", None)
    mine = tmp_path / "mine.html"
    mine.write_text("my own page")
    linked = run / "report.html"
    linked.symlink_to(mine)
    for command in (["report", str(run)], ["report", str(run), "--out", str(mine)]):
        assert main(command) == 2
        assert "is no report of suder's" in capsys.readouterr().err
    assert mine.read_text() == "my own page"
    linked.unlink()
    for _ in range(2):
        assert main(["report", str(run)]) == 0
    assert main(["report", str(run), "--out", str(mine), "--overwrite"]) == 0
    assert mine.read_text() == linked.read_text()


def test_looks_of_somebody_else(tmp_path: Path, plain: None) -> None:
    """Texts of a look are text, its pictures are drawn again from their pixels, or left out."""
    run = make_run(tmp_path / "run", None)
    make_looks(run, 3)
    honest = Elements(write_report(run).read_text(encoding="utf-8")).found
    looks = run / "looks"
    tree = json.loads((looks / "inputs.json").read_text())
    write_json(looks / "inputs.json", {**tree, "prompts": [HOSTILE, HIDDEN]})
    for number, pictures in enumerate((["no base64!"] * 2, ["PHN2Zy8+"] * 2, [7])):
        write_json(looks / f"{number:06d}.json", {"pictures": pictures, "captions": [HOSTILE] * 2})
    page = Elements(write_report(run).read_text(encoding="utf-8"))
    assert page.found <= honest | {("div",), ("ul",), ("li",)} | {("div", "class")}
    assert SCRIPT in page.text
    assert "looks: a picture left out" in page.text
    assert "000002.json: left out" in page.text
    assert not any(mark in page.text for mark in "\x1b\u202e\x00")
