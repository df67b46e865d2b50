"""TRL's trainers with `patch()` and without: losses, gradients, metrics, what is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from suder_ext.integrations.trl import _LinearLogprob, patch
from tests.tolerances import TOLERANCES

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the host's own libraries

CLOSE = TOLERANCES[("trl", "cpu", torch.float32)]
VOCABULARY, WIDTH = 97, 16
EVERYTHING = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


@pytest.fixture
def utils() -> Iterator[Any]:
    from trl.trainer import utils

    before = utils._ChunkedLogProbFunction, utils._use_triton
    yield utils
    assert (utils._ChunkedLogProbFunction, utils._use_triton) == before


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config)


def saved(folder: Path) -> str:
    """The model where trainers can read it a second time, as the reference."""
    llama().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    return str(folder / "model")


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 3,
    }


def grpo(folder: Path) -> Any:
    from datasets import Dataset

    def reward(completion_ids: Any, **columns: Any) -> list[float]:
        return [float(sum(ids) % 7) for ids in completion_ids]

    arguments = trl.GRPOConfig(
        **settings(folder),
        num_generations=4,
        max_completion_length=6,
        beta=0.1,
        temperature=0.7,
        num_iterations=2,
        top_entropy_quantile=0.5,
        entropy_coef=0.01,
    )
    rows = Dataset.from_list([{"prompt": "w1 w2"}, {"prompt": "w3 w4 w5"}] * 2)
    return trl.GRPOTrainer(saved(folder), reward, arguments, rows, processing_class=tokenizer())


def dpo(folder: Path, **more: Any) -> Any:
    from datasets import Dataset

    rows = [
        {"prompt": "w1 w2", "chosen": " w3 w4 w5", "rejected": " w6"},
        {"prompt": "w7", "chosen": " w8", "rejected": " w9 w10 w11 w12"},
    ]
    arguments = trl.DPOConfig(**settings(folder), **more)
    return trl.DPOTrainer(
        saved(folder),
        args=arguments,
        train_dataset=Dataset.from_list(rows * 4),
        processing_class=tokenizer(),
    )


TRAINERS: dict[str, Callable[[Path], Any]] = {
    "grpo": grpo,
    "dpo": dpo,
    "dpo wpo": lambda folder: dpo(folder, use_weighting=True),
}


def logs(trainer: Any) -> list[dict[str, float]]:
    trainer.train()
    clocks = ("runtime", "second", "time", "epoch", "flos")
    return [
        {k: v for k, v in line.items() if not any(clock in k for clock in clocks)}
        for line in trainer.state.log_history
    ]


@pytest.mark.parametrize("name", TRAINERS)
def test_training_is_the_same(name: str, tmp_path: Path, utils: Any) -> None:
    """Two steps: every number logged, the gradient's norm among them, and the weights after."""
    theirs = TRAINERS[name](tmp_path / "theirs")
    expected = logs(theirs)
    ours = TRAINERS[name](tmp_path / "ours")
    with patch():
        got = logs(ours)
    assert "loss" in expected[0]
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one == pytest.approx(other, rel=CLOSE["rtol"], abs=CLOSE["atol"], nan_ok=True)
    for weight, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=1e-5)


def oracle(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heat: float,
    cap: float | None,
    scale: float,
) -> Tensor:
    logits = hidden @ weight.T * scale + (0 if bias is None else bias * scale)
    if cap is not None:
        logits = cap * (logits / cap).tanh()
    return logits / heat


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("biased", [False, True])
def test_every_number_of_the_head(cap: float | None, scale: float, biased: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(11, WIDTH, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    bias = torch.randn(VOCABULARY, requires_grad=True) if biased else None
    target = torch.randint(VOCABULARY, (11,))
    with torch.no_grad():
        target[:5] = oracle(hidden, weight, bias, 1.0, cap, scale)[:5].argmax(-1)
    inputs = [x for x in (hidden, weight, bias) if x is not None]
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    z = oracle(doubles[0], doubles[1], doubles[2] if biased else None, 0.7, cap, scale)
    p = z.softmax(-1)
    logprob = z.log_softmax(-1).gather(1, target[:, None])[:, 0]
    entropy = -(p * z.log_softmax(-1)).sum(-1)
    found = _LinearLogprob.apply(hidden, weight, bias, target, 0.7, 64, cap, scale, EVERYTHING)
    wanted = (logprob, entropy, p.square().sum(-1).log(), z.mean(-1), z.argmax(-1) == target)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), **CLOSE)
    up = torch.randn(2, 11)
    got = torch.autograd.grad((torch.stack(found[:2]) * up).sum(), inputs)
    expected = torch.autograd.grad((torch.stack([logprob, entropy]) * up).sum(), doubles)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other.float(), **CLOSE)


def test_what_is_not_asked_for_is_none() -> None:
    head = torch.randn(5, 4)
    found = _LinearLogprob.apply(torch.randn(2, 4), head, None, torch.tensor([1, 2]), 1.0, 64)
    assert found[0].shape == (2,)
    assert found[1:] == (None,) * 4


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator of torch returns."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_no_logits() -> None:
    tokens, rows = 4096, 8192
    hidden = torch.randn(tokens, 8, requires_grad=True)
    weight = torch.randn(rows, 8, requires_grad=True)
    target = torch.randint(rows, (tokens,))
    with Largest() as largest:
        found = _LinearLogprob.apply(hidden, weight, None, target, 1.0, 64, None, 1.0, EVERYTHING)
        (found[0] + found[1]).sum().backward()
    assert largest.elements < tokens * rows / 4  # workspaces, 24 MiB


def test_only_labelled_positions_are_scored(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    utils.add_fused_lm_head(model)
    ids = torch.randint(3, VOCABULARY, (2, 7))
    labels = ids.masked_fill(torch.arange(7) < 5, -100)
    expected = model(input_ids=ids, labels=labels, fused_lm_head=True)
    rows = []
    apply = _LinearLogprob.apply
    spy = staticmethod(lambda hidden, *rest: (rows.append(len(hidden)), apply(hidden, *rest))[1])
    monkeypatch.setattr(_LinearLogprob, "apply", spy)
    with patch():
        got = model(input_ids=ids, labels=labels, fused_lm_head=True)
        nothing = model(input_ids=ids, labels=labels * 0 - 100, fused_lm_head=True)
    torch.testing.assert_close(got.log_probs, expected.log_probs, **CLOSE)
    assert rows == [4, 0]
    assert nothing.loss == 0
    nothing.loss.backward()


def test_autocast(utils: Any) -> None:
    """Weights in float32, products in bfloat16, whose sums TRL rounds once more."""
    model = llama()
    utils.add_fused_lm_head(model, outputs=EVERYTHING)
    ids = torch.randint(3, VOCABULARY, (2, 9))

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(input_ids=ids, labels=ids, fused_lm_head=True)

    theirs = run()
    with patch():
        ours = run()
    for name in EVERYTHING[:4]:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=0.1)


def test_undone_after_an_error_and_in_any_order(utils: Any) -> None:
    before = utils._ChunkedLogProbFunction
    with pytest.raises(ValueError, match="of the step"), patch():
        raise ValueError("of the step")
    assert utils._ChunkedLogProbFunction is before
    one, other = patch(), patch()
    one.undo()
    one.undo()
    assert utils._ChunkedLogProbFunction is _LinearLogprob
    other.undo()
    assert utils._ChunkedLogProbFunction is before


@pytest.mark.parametrize("version", ["1.15.2", "1.17.0", "2.0.0.dev0", "unknown"])
def test_a_version_not_known(version: str, utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl, "__version__", version)
    with pytest.raises(RuntimeError, match=rf"knows TRL 1\.16, this is {version}"):
        patch()


def test_what_is_refused() -> None:
    head = nn.Parameter(torch.randn(5, 4))
    arguments = (None, torch.tensor([1, 2]), 1.0, 64, None)
    with pytest.raises(NotImplementedError, match="above 0, this one's by -1"):
        _LinearLogprob.apply(torch.randn(2, 4), head, *arguments, -1.0)
    head.ds_id = 3
    with pytest.raises(NotImplementedError, match="ZeRO stage 3"):
        _LinearLogprob.apply(torch.randn(2, 4), head, *arguments)
