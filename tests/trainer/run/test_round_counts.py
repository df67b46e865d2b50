"""What a phase has to multiply, counted from the config, is what torch counts while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.model import steps
from benchmarks.rounds import counts, shapes, vq_counts
from benchmarks.rounds.work import Machine, Work, totals
from suder.engine.sampling import sample
from suder.models import Janus
from suder.models.base import inference
from suder.settings.learning import Lora

N, TEXT = 3, 5


class Products(TorchDispatchMode):
    """Operations of products, but those of the language model's attention if asked so.

    torch's own counter hooks modules, which inference mode does not let it.
    """

    def __init__(self, batched: bool) -> None:
        super().__init__()
        self.batched, self.count = batched, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = flop_registry.get(func._overloadpacket)
        if known and (self.batched or "bmm" not in func.name()):
            self.count += known(*args, **(kwargs or {}), out_val=result)
        return result


def operations(run: Callable[[], object], batched: bool = False) -> float:
    with sdpa_kernel(SDPBackend.MATH), Products(batched) as products:
        run()
    return products.count


@pytest.fixture(autouse=True)
def operators_seen(monkeypatch):
    """In inference mode a linear layer is not taken apart into the product that counts."""
    inside = {True: torch.no_grad, False: nullcontext}
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: inside[mode]())


@pytest.fixture
def no_pairs(monkeypatch):
    """Counts without attention: of that, less is needed than runs (what is masked runs, too)."""
    monkeypatch.setattr(counts, "attention", lambda layers, width, pairs: 0.0)


@pytest.fixture
def config(shared_janus: Janus):
    return shared_janus.core.config


def test_pictures(shared_janus: Janus, config) -> None:
    tokens = torch.arange(N * 16).view(N, 16) % 48
    found = operations(lambda: shared_janus.decode(tokens), batched=True)
    assert found == vq_counts.decoded(config.vq_config, N).operations
    pixels = torch.zeros(N, 3, 32, 32)
    found = operations(lambda: shared_janus.encode(pixels), batched=True)
    assert found == vq_counts.encoded(config.vq_config, N).operations


def test_scores(shared_janus: Janus, config, prompts, pictures, no_pairs) -> None:
    """Forwards and heads, without the pictures' VQ model, which stands above."""
    janus, text = shared_janus, [torch.arange(TEXT)] * 4
    pixels, codes = janus.pixels(pictures), torch.zeros(4, 16, dtype=torch.int64)
    question, prompt = len(janus.prompts.question_ids), len(janus.prompts.prompt_ids(prompts[0]))
    given = {
        # By the direction of the candidates.
        "generation": ("understanding", pixels, text, TEXT, question - 16),
        "understanding": ("generation", [prompts[0]] * 4, codes, prompt, 0),
    }
    for direction, (other, condition, targets, length, frame) in given.items():

        def forward(other=other, condition=condition, targets=targets):
            with inference(janus):
                hidden = janus(other, condition, targets)
                hidden.hidden @ hidden.weight.T

        works = counts.score(config, direction, torch.float32, 4, 1, length, frame)
        vq = vq_counts.encoded if direction == "understanding" else vq_counts.decoded
        expected = totals(works)[1] - vq(config.vq_config, 4).operations
        assert operations(forward) == expected, direction


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples(janus: Janus, config, prompts, guidance, no_pairs, monkeypatch) -> None:
    """Every product of a picture's tokens, the prefixes' included, but attention's."""
    prefix = len(janus.prompts.prompt_ids(prompts[0]))
    given = prompts[:1] * 2
    found = operations(lambda: sample(janus, "generation", given, N, guidance=guidance))
    works = counts.sample(
        config, "generation", torch.float32, 2, N, 16, prefix, guided=guidance != 1.0
    )
    assert found == totals(works)[1]


def test_captions(janus: Janus, config, pictures, no_pairs, monkeypatch) -> None:
    monkeypatch.setattr(Janus, "eos_token_id", -1)  # none ends early
    pixels, prefix = janus.pixels(pictures), len(janus.prompts.question_ids)
    found = operations(lambda: sample(janus, "understanding", pixels, N, max_new_tokens=TEXT))
    works = counts.sample(config, "understanding", torch.float32, 4, N, TEXT, prefix)
    assert found == totals(works)[1]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_gradients(janus, config, prompts, pictures, direction, lora, again, no_pairs) -> None:
    """A group of one, whose layout is that of the counts; the head's products are written out."""
    if lora:
        pytest.importorskip("peft")
        janus.add_lora(Lora(rank=1), seed=0)
    janus.checkpoint_activations = again
    texts, codes = [torch.arange(TEXT)] * 4, torch.zeros(4, 16, dtype=torch.int64)
    generation = direction == "generation"
    condition = prompts[:1] * 4 if generation else janus.pixels(pictures)
    prefix = janus.prompts.prompt_ids(prompts[0]) if generation else janus.prompts.question_ids

    def gradient():
        hidden = janus(direction, condition, codes if generation else texts)
        (hidden.hidden @ hidden.weight.T).sum().backward()

    adapters = sum(one.numel() for one in janus.trainable_parameters()) if lora else 0
    target, tokens = (16, len(prefix) + 15) if generation else (TEXT, len(prefix) + TEXT - 1)
    works = counts.optimise(
        config, direction, torch.float32, 4, 1, target, len(prefix),
        lora=lora, again=again, with_start=False,
    )  # fmt: skip
    expected = totals(works)[1] + 2 * adapters * 4 * tokens * (4 if again else 3)
    # Not counted is that a first layer's input may take no gradient: one layer of two here.
    assert operations(gradient) == pytest.approx(expected, rel=0.07)


def test_the_slower_of_bytes_and_products() -> None:
    machine = Machine("", copy=10.0, products={torch.float32: 5.0})
    works = [Work(100.0, 5.0, torch.float32), Work(0.0, 20.0, torch.float32)]
    assert machine.seconds(works) == 14.0


def test_a_step_run_dry_reads_what_is_counted(monkeypatch) -> None:
    """Two layers of Janus-Pro-1B, 64 rows, 320 tokens written: weights, keys and values."""
    monkeypatch.setitem(shapes.LANGUAGE, "1b", (2048, 5632, 2, 16))
    monkeypatch.setattr(steps, "AT", (320,))
    (operators,) = steps.steps("1b", 32).by_columns.values()
    found = sum(one.dram for one in operators.list)
    language = counts.Language(shapes.published_config("1b", 0), torch.bfloat16)
    prefixes, rows = 8 * 32, 64  # of four prompts and their null prompts, widened for a GPU
    kept = language.kept * (prefixes + rows * 320)
    assert found == pytest.approx(
        2 * (language.matrices + language.head["generation"] + kept), 0.05
    )
    flops = sum(one.flops for one in operators.list if one.name in ("mm", "addmm"))
    head = 2 * (2048 * 2048 * rows + 2048 * 16384 * 32)
    assert flops == 2 * language.matrices * rows + head
