"""What a run sampled and scored, read by `datasets` alone, beside the files of the phases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch

from suder.cli import main
from suder.inputs.files import DataError
from suder.inputs.pictures import digest_of
from suder.method.rollouts import load_rollouts
from suder.models import load_model
from suder.rollouts.files import find_files, read_table, write_table
from suder.rollouts.schema import COLUMNS
from suder.run.trainer import Trainer
from suder.settings.config_file import load_config
from suder.storage.files import read_tensors, seed_of


def load(place: Path, cache: Path) -> list[dict[str, Any]]:
    """As anybody would: nothing of suder."""
    files = str(place / "*.parquet") if place.is_dir() else str(place)
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))
    return list(found["train"])


def test_datasets_alone_reads_every_number_of_a_round(
    finished_run: Path, lively_model_folder: Path, tmp_path: Path
) -> None:
    run = finished_run
    rows = load(run / "rollouts", tmp_path / "cache")
    assert list(rows[0]) == [name for name, _, _ in COLUMNS]
    assert len(rows) == 2 * 2 * 3 * 4  # rounds, directions, inputs, candidates
    origin = json.loads((run / "versions.json").read_text())
    model = load_model(lively_model_folder)
    for index in (1, 2):
        folder = run / "rounds" / f"{index:06d}"
        rewards, chosen = (
            read_tensors(folder / f"{name}.safetensors")[0] for name in ("score", "select")
        )
        for one in load_rollouts(folder / "sample.safetensors"):
            name = one.direction
            here = [row for row in rows if (row["round"], row["direction"]) == (index, name)]
            assert [row["tokens"] for row in here] == [row.tolist() for row in one.sequences()]
            lengths = one.cu_seqlens.diff().tolist()
            logprob = [row.tolist() for row in one.logprob.split(lengths)]
            assert [row["logprob"] for row in here] == logprob
            said = [torch.nan if row["reward"] is None else row["reward"] for row in here]
            assert torch.equal(torch.tensor(said).nan_to_num(7), rewards[name].nan_to_num(7))
            assert [row["advantage"] for row in here] == chosen[f"{name}/advantage"].tolist()
            assert [row["valid"] for row in here] == chosen[f"{name}/valid"].tolist()
            assert [row["finished"] for row in here] == one.finished.tolist()
            places = [(row["group"], row["candidate"]) for row in here]
            assert places == [(i, j) for i in range(3) for j in range(4)]
            assert [row["input"] for row in here] == [one.inputs[i] for i, _ in places]
            assert {row["seed"] for row in here} == {seed_of(0, index, "sample", name)}
            assert {row["run"] for row in here} == {origin["run"]}
            if name == "understanding":
                assert [row["text"] for row in here] == model.detokenize(one.sequences())
                assert here[0]["digest"] == digest_of(Path(here[0]["input"]).read_bytes())
                assert here[0]["question"] == "Describe the image."
            else:
                assert all(row["text"] == row["input"] for row in here)
                assert here[0]["digest"] is here[0]["question"] is None


def test_the_command_writes_what_the_run_does_and_adds_what_is_new(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    second = run / "rounds" / "000002" / "select.safetensors"
    second.rename(second.with_name("hidden"))  # a round that is not done yet
    assert main(["rollouts", str(run), "--output", str(out)]) == 0
    assert "1 round from 1 to 1: " in capsys.readouterr().out
    second.with_name("hidden").rename(second)
    assert main(["rollouts", str(run), "--output", str(out)]) == 0
    assert "2 rounds from 1 to 2, 1 of them there already: " in capsys.readouterr().out
    for path in find_files(run / "rollouts"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    other = read_table([out / "000001.parquet"])
    place = other.column_names.index("run")
    write_table(
        out / "000001.parquet", other.set_column(place, "run", pa.array(["x"] * len(other)))
    )
    assert main(["rollouts", str(run), "--output", str(out)]) == 2
    assert "is of another run" in capsys.readouterr().err


def test_a_run_begun_again_leaves_no_rollouts_of_the_one_before(run: Path) -> None:
    note = run / "rollouts" / "mine.parquet"
    note.write_text("the user's")
    (run / "rollouts" / "000009.parquet.partial").write_text("half")
    Trainer.resume(run, quiet=True, start_over=True)._load_state()
    assert [path.name for path in (run / "rollouts").iterdir()] == ["mine.parquet"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(["tokens"]), "lacks tokens"),
        (lambda table: table.set_column(0, "run", [[None] * len(table)]), "row 0: `run` is null"),
        (lambda table: table.set_column(10, "tokens", [["a"] * len(table)]), "`tokens` takes list"),
        (lambda table: table.slice(0, 0), "no rows"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    finished_run: Path, tmp_path: Path, change: Any, said: str
) -> None:
    path = tmp_path / "other.parquet"
    write_table(path, change(read_table(find_files(finished_run / "rollouts"))))
    with pytest.raises(DataError, match=rf"other\.parquet.*{said}"):
        read_table([path])


def test_no_parquet_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(find_files(tmp_path))
    with pytest.raises(DataError, match=r"no \*\.parquet in"):
        find_files(tmp_path / "empty")


def test_the_document_tells_every_column() -> None:
    text = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \|", text, re.MULTILINE)
    assert told == [(name, kind) for name, kind, _ in COLUMNS]


def test_samples_that_only_hold_a_direction_are_no_candidates(
    finished_run: Path, tmp_path: Path
) -> None:
    settings = load_config(finished_run / "config.yaml").model_dump(mode="json")
    run, out = tmp_path / "one", tmp_path / "out"
    config = load_config(settings, [f"output={run}", "rounds=1", "directions=understanding"])
    Trainer(config, quiet=True).run()
    held = [
        one.direction for one in load_rollouts(run / "rounds" / "000001" / "sample.safetensors")
    ]
    assert sorted(held) == ["generation", "understanding"]
    assert main(["rollouts", str(run), "--output", str(out)]) == 0
    assert set(read_table(find_files(out))["direction"].to_pylist()) == {"understanding"}
    assert read_table(find_files(out)) == read_table(find_files(run / "rollouts"))
