"""What a run is said to hold, beside what it held; and runs that cannot fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from suder.cli import main
from suder.guard.distance import logprob_of
from suder.method.entropy import mean_entropy
from suder.method.judge import SelfJudge
from suder.method.rollouts import Rollouts
from suder.models.base import DIRECTIONS, Direction
from suder.run import dry_readings, memory, room
from suder.run.dry_round import DryRound
from suder.run.live_bytes import LiveBytes, peak_of
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import dump_config, load_config


class EveryByte(LiveBytes):
    """Counts what operators are given, too: weights, and what they change in place."""

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return super().__torch_dispatch__(function, types, args, kwargs)


FROZEN = "dtype=bfloat16 reward.scorer=frozen optimizer.tokens_per_batch=100"


# No more than are written by a random model, which does not end its captions by itself.
@pytest.mark.parametrize(
    ("model_folder", "settings"),
    [
        ("janus", "directions=understanding"),
        ("janus", "directions=generation objective.kl_estimator=k3"),
        # What is held is more than what is trained: captions of many tokens.
        ("liquid", "directions=generation objective.name=expert sampling.max_new_tokens=100"),
        ("emu3", "directions=understanding sampling.guidance=3 sampling.policy=cfg"),
        ("janus", "objective.name=simpo dtype=bfloat16"),
        ("janus", "optimizer.tokens_per_batch=200 sampling.guidance=3 sampling.policy=cfg"),
        ("janus", "optimizer.checkpoint_activations=true lora.rank=4"),
        ("janus", FROZEN),
        ("janus", f"{FROZEN} optimizer.start_dtype=bfloat16"),
        ("emu3", "optimizer.checkpoint_activations=true sampling.guidance=3 sampling.policy=cfg"),
        ("liquid", "objective.name=simpo dtype=bfloat16 lora.rank=4"),
    ],
    indirect=["model_folder"],
)
def test_a_run_holds_what_was_said(
    make_config: Callable[..., TrainConfig], model_folder: Path, settings: str
) -> None:
    common = (
        f"model={model_folder}",
        "rounds=2",
        "guard.enabled=false",
        "candidates=8",
        "inputs_per_round=6",
    )
    config = make_config(*common, *settings.split())
    said = plan(config)
    with EveryByte() as seen:
        Trainer(config, quiet=True).run()
    assert said.total == pytest.approx(seen.peak, rel=0.15)


def test_a_look_of_the_guard_counts(make_config: Callable[..., TrainConfig]) -> None:
    """It draws more than a round does."""
    config = make_config("rounds=1", "guard.samples=48", "inputs_per_round=2", "candidates=2")
    said = plan(config)
    with EveryByte() as seen:
        Trainer(config, quiet=True).run()
    assert said.total == pytest.approx(seen.peak, rel=0.15)


@pytest.mark.parametrize("tokens", [300, 100000])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_only_reads_candidates_counts(
    judging_model: Any, make_config: Callable[..., TrainConfig], direction: Direction, tokens: int
) -> None:
    """The judge's passes, the entropies' and the guard's, beside the peaks of real ones."""
    model, drawn = judging_model, direction == "generation"
    config = make_config(
        f"optimizer.tokens_per_batch={tokens}", "inputs_per_round=4", "candidates=4",
        "guard.samples=16", "objective.entropy_anchor=1",
    )  # fmt: skip
    longest = "a red circle left of a green square"
    dry = DryRound(config, model, longest, watched=4)
    words = ["red", "blue", "a", "two", "circle"]
    captions = [" ".join(words[i % 5 :] + words[: i % 5] + [words[i // 5]]) for i in range(16)]
    ids = torch.stack([model.tokenize([one])[0][:6] for one in captions])
    generator = torch.Generator().manual_seed(0)
    size = (16, model.num_image_tokens)
    codes = torch.randint(model.image_vocab_size, size, generator=generator)
    shown = codes if model.reads_tokens else model.pixels(list(model.decode(codes).numpy()))
    tokens_of = codes if drawn else ids
    given: Any = [longest] * 4 if drawn else shown[:4].clone()
    rollouts = Rollouts(
        direction, tuple(given) if drawn else tuple("abcd"), 4, tokens_of.flatten(),
        torch.arange(17) * tokens_of.shape[1], torch.zeros(tokens_of.numel()),
        torch.ones(16, dtype=torch.bool),
    )  # fmt: skip
    judge = SelfJudge(model, tokens_per_batch=tokens)
    asked = (shown, given) if drawn else (given, captions)
    real = {
        "asked": lambda: judge(*asked, 4),
        "entropy": lambda: mean_entropy(model, rollouts, given, config),
        "distance": lambda: logprob_of(model, rollouts, given, config.sampling, 256, tokens),
    }
    said = {
        "asked": dry_readings.asked(dry, judge, direction, 4, 4),
        "entropy": dry_readings.entropy(dry, direction),
        "distance": dry_readings.distance(dry, direction, 4, 4),
    }
    with torch.no_grad():
        held = {name: peak_of(run) for name, run in real.items()}
    if not drawn:  # a view of what was there before counts as new
        held |= {name: held[name] - given.nbytes for name in ("entropy", "distance")}
    assert said == {name: pytest.approx(peak, rel=0.15) for name, peak in held.items()}
    assert dry_readings.read(dry, direction) >= max(said.values())


def test_what_does_not_fit_is_refused_with_what_helps(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("candidates=16", "inputs_per_round=12")
    said, _ = room.room(config)
    monkeypatch.setattr(room, "free_bytes", lambda device: said.total - 1)
    with pytest.raises(
        room.NoRoom,
        match=r"pictures.*it fits with sampling\.batch_size=32 optimizer\.tokens_per_batch=",
    ):
        room.room(config)
    monkeypatch.setattr(room, "free_bytes", lambda device: 1000)
    with pytest.raises(room.NoRoom, match=r"does not fit with .*offload=true lora\.rank=32 either"):
        room.room(config)


def test_offload_moves_to_the_host(make_config: Callable[..., TrainConfig]) -> None:
    here, away = plan(make_config()), plan(make_config("optimizer.offload=true"))
    learnt = here.held["averaged weights"]
    assert (away.held["averaged weights"], away.host) == (0, 2 * learnt)


def test_the_commands_say_it(
    make_config: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("rounds=1", "guard.enabled=false")
    file = tmp_path / "settings.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert main(["plan", str(file)]) == 0
    said = capsys.readouterr().out
    assert "+ optimise" in said
    assert "left on cpu" in said
    assert main(["train", str(file)]) == 0
    assert said.splitlines()[0] in capsys.readouterr().out


def test_memory_of_this_machine_and_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.free_bytes("cpu") > 1 << 20
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory._container() > 1 << 60
    for name, text in (("max", "5000"), ("current", "3000"), ("stat", "anon 1\nfile 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_bytes("cpu") == 2500


def test_a_copy_to_sample_with_is_as_large_with_adapters(make_config):
    """Run dry, merging could not be tried out, and adapted layers were left out."""
    pytest.importorskip("peft")
    plain, adapted = (
        plan(make_config("dtype=bfloat16", change)).held["16-bit copies"]
        for change in ("lora.rank=0", "lora.rank=2")
    )
    assert adapted >= plain


def test_what_each_of_several_processes_holds(make_config: Callable[..., TrainConfig]) -> None:
    """Divided are weights, averages and moments; not the copies, nor what is never trained."""
    config = make_config("inputs_per_round=6", "guard.enabled=false")
    alone, one = plan(config), plan(config, 4)
    assert one.held == alone.held  # but two inputs, not six
    assert one.phases["sample"] < alone.phases["sample"]
    divided = plan(load_config(config.model_dump(), ["optimizer.shard=true"]), 4).held
    assert divided["Adam's moments"] == alone.held["Adam's moments"] // 4
    learnt, weights = alone.held["start model"], alone.held["weights"]
    assert divided["weights"] == weights - learnt + learnt // 4
    assert divided["start model"] == divided["whole copy to draw with"] == learnt
