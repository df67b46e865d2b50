"""Adam's moments in 8 bits through torchao: near float32, exact if resumed, said if missing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from suder.method.balance import Updater
from suder.method.moments import moment_bytes
from suder.run.learner import Learner
from suder.run.plan import plan
from suder.settings.config import TrainConfig
from suder.settings.learning import Optimizer


def updater(moments: str) -> Updater:
    make = torch.Generator().manual_seed(1)
    shapes = {"matrix": (64, 96), "odd": (4099,), "small": (7, 5)}
    named = [
        (name, torch.randn(shape, generator=make, requires_grad=True))
        for name, shape in shapes.items()
    ]
    return Updater(named, Optimizer(lr=0.01, warmup_rounds=3, moments=moments))


def steps(one: Updater, numbers: range) -> None:
    for number in numbers:
        make = torch.Generator().manual_seed(number)
        gradient = [torch.randn(param.shape, generator=make) + 0.3 for param in one.params]
        one.step({"generation": gradient}, {"generation": 1.0 + number})
        one.end_round()


@pytest.fixture
def torchao() -> None:
    pytest.importorskip("torchao", reason="an extra of its own: pip install 'suder[torchao]'")


@pytest.mark.usefixtures("torchao")
def test_steps_are_near_those_of_float32() -> None:
    """A matrix by the rounding of 256 levels; what is too small or odd for blocks, exactly."""
    short, plain = updater("8bit"), updater("float32")
    before = [param.detach().clone() for param in plain.params]
    for one in (short, plain):
        steps(one, range(8))
    for name, start, ours, theirs in zip(
        plain.names, before, short.params, plain.params, strict=True
    ):
        moved, gap = (theirs - start).detach(), (ours - theirs).detach()
        share = float(gap.square().mean().sqrt() / moved.square().mean().sqrt())
        if name == "matrix":
            assert 1e-5 < share < 0.05
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("torchao")
def test_a_state_goes_on_with_the_same_bits() -> None:
    whole, first, second = updater("8bit"), updater("8bit"), updater("8bit")
    steps(whole, range(6))
    steps(first, range(3))
    tensors, meta = first.state()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.uint8}
    assert all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in tensors.values())
    second.load_state({name: tensor.detach().clone() for name, tensor in tensors.items()}, meta)
    steps(second, range(3, 6))
    for one, other in zip(whole.params, second.params, strict=True):
        assert torch.equal(one, other)
    ours, theirs = whole.state()[0], second.state()[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.usefixtures("torchao")
def test_their_bytes_are_those_of_the_plan() -> None:
    one = updater("8bit")
    steps(one, range(1))
    held = sum(
        tensor.nbytes for name, tensor in one.state()[0].items() if name.startswith("adam/exp_avg")
    )
    assert moment_bytes(one.params, one.settings) == held
    assert moment_bytes(one.params, Optimizer()) == sum(8 * param.numel() for param in one.params)


def test_without_torchao_it_is_said_before_any_work(
    make_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suder.method.moments.find_spec", lambda name: None)
    monkeypatch.setattr("suder.run.learner.load_model", lambda *_: pytest.fail("it began"))
    config = make_config("optimizer.moments=8bit")
    for begin in (plan, Learner):
        with pytest.raises(ModuleNotFoundError, match=r"8bit needs torchao: pip install 'suder\["):
            begin(config)
