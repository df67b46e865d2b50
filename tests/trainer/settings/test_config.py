"""Settings: what is read, what is refused, and whether the refusal helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from suder.method.directions import active, held
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError, describe_config, dump_config, load_config

LEAST = "output: runs/x\ndata: {images: a, prompts: b}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(LEAST + "optimizer:\n  lr: 1e-4\n  betas: [0.8, 0.9]\n", encoding="utf-8")
    return path


def test_file_then_overrides(settings: Path) -> None:
    config = load_config(settings, ["optimizer.lr=3e-5", "seed=7", "objective.name=dpo"])
    assert config.optimizer.lr == 3e-5
    assert config.optimizer.betas == [0.8, 0.9]
    assert (config.seed, config.objective.name) == (7, "dpo")
    assert config.rounds == TrainConfig.model_fields["rounds"].default


def test_number_that_yaml_1_1_reads_as_text(settings: Path) -> None:
    assert load_config(settings).optimizer.lr == 1e-4


def test_resolved_settings_read_back(settings: Path, tmp_path: Path) -> None:
    config = load_config(settings, ["objective.name=dpo", "objective.beta=2", "sampling.top_p=0.5"])
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "unknown setting `optimizer.lrr`; did you mean `optimizer.lr`?"),
        ("lr=1", "unknown setting `lr`; did you mean `optimizer.lr`?"),
        ("objectve=1", "unknown setting `objectve`; did you mean `objective`?"),
        ("candidats=2", "unknown setting `candidats`; did you mean `candidates`?"),
        ("qqq=2", "unknown setting `qqq`; `suder train --help-config` lists all"),
        ("optimizer.lr='1e-4'", r"`optimizer.lr`: .* got '1e-4' \(str\)"),
        ("seed=1.5", r"`seed`: .*integer.* got 1.5 \(float\)"),
        ("seed=true", r"`seed`: .*integer.* got True \(bool\)"),
        ("candidates=1", r"`candidates`: .*greater than or equal to 2, got 1"),
        ("optimizer.lr=.nan", r"`optimizer.lr`: .*finite"),
        ("objective.name=ppo", "'grpo', 'simpo', 'dpo' or 'expert', got 'ppo'"),
        ("objective.loss_type=ipo", "loss_type has no meaning for grpo"),
        ("objective.beta=2", "objective.beta is 2.0, which grpo does not use: leave it out"),
        ("objective.margin=0.5", "objective.margin is 0.5, which grpo does not use"),
        (
            "objective={kl: 0, kl_estimator: k3}",
            "objective.kl_estimator is k3, which grpo does not",
        ),
        (
            "objective.anchor=0.1",
            "objective.anchor holds the direction that a round does not train",
        ),
        ("objective={name: dpo, clip: 0.1}", "objective.clip is 0.1, which dpo does not use"),
        ("objective={name: expert, normalize: none}", "objective.normalize is none, which expert"),
        (
            "objective={name: simpo, loss_type: ipo, margin: 0.5}",
            "margin .* loss_type ipo does not",
        ),
        ("objective={name: dpo, loss_type: sft, beta: 1.0}", "beta .* loss_type sft does not use"),
        ("objective={name: dpo, loss_type: exo_pair}", "exo_pair needs smoothed labels"),
        ("data.heldout=0.0", "the guard needs inputs to watch"),
        ("data=3", "`data`"),
        ("rounds", "expected section.key=value"),
        ("seed.x=3", "`seed`"),
        ("optimizer.betas=[", "not a YAML value"),
        ("rounds=3 #2", "begins a comment"),
        ("output=", "`output`: .*at least 1 character"),
        ("seed=1" + "0" * 30, "`seed`: .*less than or equal to"),
        ("sampling.guidance=.inf", "`sampling.guidance`: .*finite"),
        ("sampling.guidance=1e999", "`sampling.guidance`: .*finite"),
        ("x" * 10_000 + "=1", "unknown setting"),
        ("seed=" + "x" * 10_000, "`seed`"),
        ("a." * 5000 + "a=1", "unknown setting `a`"),
    ],
)
def test_refused_with_a_way_out(settings: Path, override: str, message: str) -> None:
    changes = ["seed=1", override] if override == "seed.x=3" else [override]
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(settings, changes)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("output=runs/try #2", "", "output", "runs/try #2"),
        ("output='runs/try #2'", "", "output", "runs/try #2"),
        ("output=[a", "", "output", "[a"),
        ("output=2024-01-01", "", "output", "2024-01-01"),
        ("output=7", "", "output", "7"),
        ("output=~/runs/x", "", "output", "/home/someone/runs/x"),
        ("model=~/m", "", "model", "/home/someone/m"),
        ("data.images=~/p: q", "data", "images", "/home/someone/p: q"),
        ("data.prompts=~/p.txt", "data", "prompts", "/home/someone/p.txt"),
        ("device=cuda:1", "", "device", "cuda:1"),
        ("optimizer.lr=3e-5", "optimizer", "lr", 3e-5),
    ],
)
def test_override_is_read_as_it_is_meant(
    settings: Path,
    override: str,
    section: str,
    key: str,
    value: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text as it stands: YAML would cut it at ` #` and make dates and numbers of it."""
    monkeypatch.setenv("HOME", "/home/someone")
    config = load_config(settings, [override])
    assert getattr(getattr(config, section) if section else config, key) == value


def test_home_folder_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    path = tmp_path / "run.yaml"
    path.write_text("output: ~/x\ndata: {images: ~/a, prompts: ~/b}\n", encoding="utf-8")
    config = load_config(path)
    assert [config.output, config.data.images, config.data.prompts] == [
        f"/home/someone/{name}" for name in "xab"
    ]


def test_merge_key_with_an_override(tmp_path: Path) -> None:
    """`<<` brings in what another section sets; set again beside it wins."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "output: &name x\ndata: &data {images: a, prompts: b}\n"
        "guard: &guard\n  every: 3\n  patience: 4\n"
        "sampling:\n  <<: {top_k: 5, top_p: 0.5}\n  top_k: 6\n",
        encoding="utf-8",
    )
    sampling = load_config(path).sampling
    assert (sampling.top_k, sampling.top_p) == (6, 0.5)
    path.write_text(LEAST + "sampling:\n  <<: {top_k: 5}\n  top_k: 6\n  top_k: 7\n")
    with pytest.raises(ConfigError, match=r"`sampling.top_k` is set twice, lines 5 and 6"):
        load_config(path)


def test_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(LEAST + "optimizer:\n  lr: 0.1\n  wamup_rounds: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run.yaml, line 5: .*`optimizer.warmup_rounds`\?"):
        load_config(path)


def test_every_bad_key_is_named_at_once(settings: Path) -> None:
    with pytest.raises(ConfigError, match=r"`rounds`(.|\n)*`seed`"):
        load_config(settings, ["seed=x", "rounds=y"])


def test_missing_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output: x\ndata: {images: a}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"`data.prompts` is missing"):
        load_config(path)


def test_key_set_twice(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(LEAST + "seed: 1\nseed: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"`seed` is set twice, lines 3 and 4"):
        load_config(path)


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n", "!!python/object:os.system {}\n"])
def test_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run.yaml"):
        load_config(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no settings file .*nope.yaml"):
        load_config(tmp_path / "nope.yaml")


def test_every_setting_has_a_meaning_and_limits_hold_for_the_defaults() -> None:
    """Each line of --help-config says something, and its defaults are themselves accepted."""
    lines = describe_config().splitlines()
    for line in lines:
        key, _, meaning = line.partition("#")
        assert meaning.strip() or key.rstrip().endswith(":"), line
    config = load_config({"output": "x", "data": {"images": "a", "prompts": "b"}})
    assert load_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        ("joint", [("understanding", "generation")] * 2),
        ("alternating", [("understanding",), ("generation",)]),
        ("generation", [("generation",)] * 2),
        ("understanding", [("understanding",)] * 2),
    ],
)
def test_directions_of_a_round(settings: Path, directions: str, expected: list[str]) -> None:
    config = load_config(settings, [f"directions={directions}"])
    assert [active(config, 1), active(config, 2)] == expected


def test_the_other_direction_of_a_round_is_held(settings: Path) -> None:
    """By itself where one direction is trained alone; where both are in turn, if asked."""

    def resting(*changes: str) -> list[str | None]:
        return [held(load_config(settings, [*changes]), index) for index in (1, 2)]

    assert resting() == [None, None]
    assert resting("directions=understanding") == ["generation"] * 2
    assert resting("directions=generation") == ["understanding"] * 2
    assert resting("directions=generation", "objective.anchor=0.0") == [None, None]
    assert resting("directions=alternating") == [None, None]
    asked = resting("directions=alternating", "objective.anchor=0.1")
    assert asked == ["generation", "understanding"]
