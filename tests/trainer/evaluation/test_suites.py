"""Pictures for other benchmarks' scorers: their layouts, and the same bytes whatever happens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import suder
from suder.cli import main
from suder.evaluation.suites import dpg, draw, geneval, t2i_compbench, wise
from suder.evaluation.suites.draw import How
from suder.inputs.files import DataError
from suder.storage.folders import FolderError

PROMPTS = ("a red circle", "a blue square", "two red circles", "a green triangle", "a red square")


@pytest.fixture(scope="module")
def janus(shared_janus):
    return shared_janus


def write_prompts(suite: str, folder: Path) -> Path:
    """The suite's own kind of file with PROMPTS in it."""
    if suite == "dpg":
        for i, prompt in enumerate(PROMPTS):
            (folder / "dpg").mkdir(exist_ok=True)
            (folder / "dpg" / f"partiprompts{i}.txt").write_text(f"{prompt}\n", encoding="utf-8")
        return folder / "dpg"
    texts = {
        "geneval": "".join(
            json.dumps({"tag": "single_object", "include": [{"class": "x"}], "prompt": one}) + "\n"
            for one in PROMPTS
        ),
        "t2i-compbench": "\n".join(PROMPTS) + "\n",
        "wise": json.dumps([{"Prompt": one, "prompt_id": 5 - i} for i, one in enumerate(PROMPTS)]),
    }
    file = folder / f"{suite}.txt"
    file.write_text(texts[suite], encoding="utf-8")
    return file


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name != "manifest.json"
    }


def run(model, suite, items, out, how, shard=(0, 1)) -> None:
    list(draw.draw(model, suite, items, out, how, shard))


def pictures_of(model, n: int, seed: int, prompts=PROMPTS) -> np.ndarray:
    """[C, n, S, S, 3], by the public sampler in one call."""
    tokens = suder.sample(model, "generation", list(prompts), n, seed=seed).tokens
    pictures = model.decode(tokens).numpy()
    return pictures.reshape(len(prompts), n, *pictures.shape[1:])


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_geneval_reads_what_is_drawn(janus, tmp_path):
    """As evaluate_images.py walks: folders of digits, one JSON object each, \\d+.png."""
    items = geneval.items(write_prompts("geneval", tmp_path), 2)
    run(janus, "geneval", items, tmp_path / "out", How(2, seed=3))
    expected = pictures_of(janus, 2, 3)
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [path.name for path in folders] == [f"{i:05d}" for i in range(5)]
    for i, folder in enumerate(folders):
        assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == PROMPTS[i]
        shown = sorted((folder / "samples").iterdir())
        assert all(re.fullmatch(r"\d+\.png", path.name) for path in shown)
        assert np.array_equal([pixels(path) for path in shown], expected[i])


def test_t2i_compbench_reads_what_is_drawn(janus, tmp_path):
    """As its scorers do: sorted by the last number, the prompt before the first _."""
    items = t2i_compbench.items(write_prompts("t2i-compbench", tmp_path), 3)
    run(janus, "t2i-compbench", items, tmp_path / "out", How(3, seed=1))
    names = [path.name for path in (tmp_path / "out" / "samples").iterdir()]
    names.sort(key=lambda name: int(name.split("_")[-1].split(".")[0]))
    assert [name.split("_")[0] for name in names] == [one for one in PROMPTS for _ in range(3)]
    assert names[0] == "a red circle_000000.png"
    shown = [pixels(tmp_path / "out" / "samples" / name) for name in names]
    assert np.array_equal(shown, pictures_of(janus, 3, 1).reshape(np.shape(shown)))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_dpg_cuts_its_grid_into_what_is_drawn(janus, tmp_path, n):
    items = dpg.items(write_prompts("dpg", tmp_path), n)
    run(janus, "dpg", items, tmp_path / "out", How(n, seed=2))
    side = janus.image_size
    corners = [(0, 0), (side, 0), (0, side), (side, side)][:n]  # x, y, as the scorer's list
    expected = pictures_of(janus, n, 2)
    for i in range(len(PROMPTS)):
        picture = Image.open(tmp_path / "out" / "images" / f"partiprompts{i}.png")
        parts = [picture.crop((x, y, x + side, y + side)) for x, y in corners]
        assert np.array_equal([np.asarray(part) for part in parts], expected[i])


def test_wise_is_named_by_prompt_id(janus, tmp_path):
    items = wise.items(write_prompts("wise", tmp_path))
    run(janus, "wise", items, tmp_path / "out", How(1, seed=4))
    expected = pictures_of(janus, 1, 4, PROMPTS[::-1])[:, 0]
    shown = [pixels(tmp_path / "out" / "images" / f"{i}.png") for i in range(1, 6)]
    assert np.array_equal(shown, expected)


def test_a_kill_and_shards_change_no_byte(janus, tmp_path, monkeypatch):
    items = t2i_compbench.items(write_prompts("t2i-compbench", tmp_path), 2)
    how = How(2, seed=7, batch_size=4)
    run(janus, "t2i-compbench", items, tmp_path / "whole", how)
    whole = files_in(tmp_path / "whole")
    assert len(whole) == 10

    for i in (2, 0, 1):
        run(janus, "t2i-compbench", items, tmp_path / "shards", how, (i, 3))
    assert files_in(tmp_path / "shards") == whole

    # A kill: one picture only half written, one missing, one cut by a power failure.
    out = tmp_path / "whole"
    names = list(whole)
    kept = (out / names[0]).stat().st_mtime_ns
    (out / names[1]).rename(out / f"{names[1]}.partial")
    (out / names[2]).write_bytes(whole[names[2]][:50])
    drawn = []
    real = draw.sample
    monkeypatch.setattr(draw, "sample", lambda *a, **k: drawn.append(a[2]) or real(*a, **k))
    run(janus, "t2i-compbench", items, out, how)
    assert files_in(out) == whole
    assert (out / names[0]).stat().st_mtime_ns == kept
    assert 1 <= len(drawn) <= 2
    drawn.clear()
    run(janus, "t2i-compbench", items, out, how)
    assert not drawn


def test_a_folder_of_other_settings_or_files_is_refused(janus, tmp_path):
    items = t2i_compbench.items(write_prompts("t2i-compbench", tmp_path), 1)
    out = tmp_path / "out"
    run(janus, "t2i-compbench", items, out, How(1))
    before = files_in(out)
    with pytest.raises(FolderError, match="seed 0 there and 1 now"):
        run(janus, "t2i-compbench", items, out, How(1, seed=1))
    with pytest.raises(FolderError, match="prompts 5 there and 4 now"):
        run(janus, "t2i-compbench", items[:4], out, How(1))
    (out / "annotation_blip").mkdir()  # the scorer's own
    run(janus, "t2i-compbench", items, out, How(1))
    (out / "samples" / "grid.png").write_bytes(b"")
    with pytest.raises(FolderError, match="its scorer would count it"):
        run(janus, "t2i-compbench", items, out, How(1))
    (out / "samples" / "grid.png").unlink()
    assert files_in(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FolderError, match=r"letter\.txt"):
        run(janus, "t2i-compbench", items, tmp_path / "mine", How(1))
    assert list(files_in(tmp_path / "mine")) == ["letter.txt"]


def test_manifest_says_what_was_drawn(janus, tmp_path):
    items = wise.items(write_prompts("wise", tmp_path))
    run(janus, "wise", items, tmp_path / "out", How(1, 9, temperature=0.5, guidance=2.0))
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (said["seed"], said["temperature"], said["guidance"]) == (9, 0.5, 2.0)
    assert (said["suite"], said["prompts"]) == ("wise", 5)
    assert len(said["model_hash"]) == 64
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("suite", "text", "message"),
    [
        (t2i_compbench, "a cat / a dog", "has a / or _"),
        (t2i_compbench, "a cat\na snake_case", "has a / or _"),
        (t2i_compbench, "a cat " * 50, "too long for a file's name"),
        (t2i_compbench, "\n \n", "no prompts"),
        (geneval, '{"prompt": "a cat"}', "line 1: takes an object"),
        (geneval, "{", "line 1: not JSON"),
        (geneval, '\n{"prompt": 3, "tag": "x", "include": []}', "line 2: takes an object"),
        (wise, '[{"Prompt": "a cat"}]', "takes a list of objects"),
        (wise, '[{"Prompt": "a", "prompt_id": 1}, {"Prompt": "b", "prompt_id": 1}]', "comes twice"),
        (dpg, "a cat", "folder of prompts"),
    ],
)
def test_what_a_scorer_would_misread_is_refused(tmp_path, suite, text, message):
    file = tmp_path / "prompts"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        suite.items(file)


def test_dpg_refuses_a_name_that_its_scorer_would_cut(tmp_path):
    (tmp_path / "a.b.txt").write_text("a cat")
    with pytest.raises(DataError, match="second dot"):
        dpg.items(tmp_path)


@pytest.mark.parametrize(("suite", "n"), [(geneval, 0), (dpg, 5), (wise, 2)])
def test_numbers_that_a_scorer_does_not_read(tmp_path, suite, n):
    with pytest.raises(ValueError, match="--n: "):
        suite.items(tmp_path, n)


@pytest.fixture(scope="module")
def folder(janus, tmp_path_factory):
    path = tmp_path_factory.mktemp("suites")
    janus.save(path / "model")
    return path / "model"


@pytest.mark.parametrize("suite", ["geneval", "t2i-compbench", "dpg", "wise"])
def test_command(folder, tmp_path, capsys, monkeypatch, suite):
    prompts, out = write_prompts(suite, tmp_path), tmp_path / "out"
    # Options before the model, as a second word and a model after it are two positionals.
    options = ["--prompts", str(prompts), "--out", str(out), "--batch-size", "4", str(folder)]
    assert main(["evaluate", suite, "--shard", "1/2", *options]) == 0
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["evaluate", suite, *options]) == 0
    n = {"geneval": 4, "t2i-compbench": 10, "dpg": 1, "wise": 1}[suite]
    assert len(list(out.rglob("*.png"))) == 5 * n
    assert "part 2 of 2" in capsys.readouterr().out
    assert main(["evaluate", suite, *options, "--shard", "3/2"]) == 2
    assert "takes I/N" in capsys.readouterr().err


def test_base_and_tuned_are_drawn_by_the_same_noise(folder, janus, make_janus, tmp_path, capsys):
    """Of two models, and by default of a run: its start model and its result."""
    make_janus(seed=5).save(tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").write_text(
        f"model: {folder}\ndata:\n  images: x\n  prompts: y\noutput: z\n", encoding="utf-8"
    )
    options = ["--prompts", str(write_prompts("wise", tmp_path)), "--seed", "4", "--out"]
    tuned = str(tmp_path / "run" / "model")
    two = ["evaluate", "wise", "--base", str(folder), *options, str(tmp_path / "two"), tuned]
    assert main(two) == 0
    assert main(["evaluate", "wise", *options, str(tmp_path / "out"), str(tmp_path / "run")]) == 0
    assert str(tmp_path / "out" / "tuned" / "images") in capsys.readouterr().out
    expected = pictures_of(janus, 1, 4, PROMPTS[::-1])[:, 0]
    for out in ("two", "out"):
        base, tuned = (
            [pixels(tmp_path / out / side / "images" / f"{i}.png") for i in range(1, 6)]
            for side in ("base", "tuned")
        )
        assert np.array_equal(base, expected)
        assert not np.array_equal(base, tuned)


ASKED = ("pope", "mmbench", "mmmu", "seedbench", "hallusionbench")


@pytest.mark.parametrize("suite", ["geneval", "t2i-compbench", "dpg", "wise", *ASKED])
def test_help_has_an_example(capsys, suite):
    with pytest.raises(SystemExit):
        main(["evaluate", suite, "--help"])
    assert f"suder evaluate {suite}" in capsys.readouterr().out.partition("example")[2]


def test_a_model_of_a_suites_name_is_evaluated_as_before(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "geneval").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "geneval", "--n", "4"]) == 0
    assert "geneval on test" in capsys.readouterr().out
