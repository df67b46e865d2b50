"""Recorded steps, as a GPU runs them, with a recorder of the CPU's in the place of CUDA's."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
import torch

from suder.engine.graphs import Graphs, graphs_of
from suder.engine.sampling import sample
from tests.trainer.engine.recorder import Recorder


class Counted:
    """`record` for Graphs; counts what was recorded and run again."""

    def __init__(self):
        self.count = Counter()

    def __call__(self, step):
        with Recorder() as recorder:
            step()  # a GPU would only write it down
        self.count["recorded"] += 1
        ran = [True]

        def again():
            if not ran.pop():
                recorder.replay()
            ran.append(False)
            self.count["run"] += 1

        return again


@pytest.fixture
def recorded(monkeypatch):
    counted = Counted()
    graphs = Graphs(counted, budget=1 << 30)
    counted.graphs = graphs
    monkeypatch.setattr("suder.engine.sampling.graphs_of", lambda model: graphs)
    return counted


def equal(ours, theirs):
    return (
        all(map(torch.equal, ours.tokens, theirs.tokens))
        and all(map(torch.equal, ours.logprob, theirs.logprob))
        and all(map(torch.equal, ours.entropy, theirs.entropy))
        and torch.equal(ours.finished, theirs.finished)
    )


def calls(model, prompts, pictures):
    """Of both directions, prompts of other lengths, seeds and rules, then the first again."""
    pixels = model.pixels(pictures)
    return [
        ("generation", prompts, {"n": 4}),
        ("generation", prompts[::-1], {"n": 4, "seed": 2}),
        ("generation", prompts, {"n": 4, "guidance": 3.0}),
        ("generation", prompts, {"n": 4, "guidance": 2.0, "top_k": 9}),
        ("understanding", pixels, {"n": 8, "max_new_tokens": 20}),
        ("understanding", pixels.flip(0), {"n": 8, "max_new_tokens": 20, "seed": 1, "top_p": 0.9}),
        ("understanding", pixels, {"n": 8, "max_new_tokens": 20, "seed": 1}),
        ("generation", prompts, {"n": 4, "batch_size": 8}),
        ("generation", prompts[:1] * 4, {"n": 4, "batch_size": 8}),  # two of the same shapes
        ("understanding", pixels, {"n": 8, "max_new_tokens": 20, "batch_size": 16}),
        ("generation", prompts, {"n": 4, "seed": 3}),
    ]


@pytest.mark.parametrize(
    ("fresh_model", "columns"),
    [("janus", 4), ("janus", 64), ("emu3", 4), ("liquid", 64)],
    indirect=["fresh_model"],
)
def test_samples_are_those_of_steps_as_they_are(
    fresh_model, prompts, pictures, recorded, monkeypatch, columns
):
    """Whatever was recorded before: other conditions, numbers, rows that ended, weights."""
    monkeypatch.setattr("suder.engine.writing.COLUMNS", columns)
    for _ in range(2):
        for direction, given, options in calls(fresh_model, prompts, pictures):
            ours = sample(fresh_model, direction, given, **options)
            with monkeypatch.context() as plain:
                plain.setattr("suder.engine.sampling.graphs_of", lambda model: None)
                theirs = sample(fresh_model, direction, given, **options)
            assert equal(ours, theirs), (direction, options)
        with torch.no_grad():  # as an optimiser does
            for weight in fresh_model.trainable_parameters():
                weight.mul_(1.05)
    assert recorded.count["run"] > 3 * recorded.count["recorded"]


def test_a_step_is_recorded_once_a_shape(shared_janus, prompts, recorded):
    for seed in range(5):
        sample(shared_janus, "generation", prompts, 4, seed=seed)
    steps = shared_janus.num_image_tokens - 1
    assert recorded.count["recorded"] == 1
    assert recorded.count["run"] == 5 * steps - 1  # the first of all runs as it is


def test_weights_elsewhere_are_other_steps(janus, prompts, recorded):
    """An average that is swapped in lies elsewhere: what was recorded would not see it."""
    first = sample(janus, "generation", prompts, 4)
    weight = janus.core.model.generation_head.vision_head.weight
    mine, weight.data = weight.data, weight.data.flip(0).contiguous()
    assert not equal(sample(janus, "generation", prompts, 4), first)
    weight.data = mine
    assert equal(sample(janus, "generation", prompts, 4), first)


def test_what_is_kept_is_bounded(shared_janus, prompts, recorded):
    recorded.graphs.budget = 0
    for n in (4, 2, 4, 3):
        sample(shared_janus, "generation", prompts, n)
        assert len(recorded.graphs.kept) == len(recorded.graphs.steps) == 1
    assert recorded.count["recorded"] == 4


def test_a_processor_records_nothing_and_graphs_hold_no_model(make_janus, prompts, recorded):
    model = make_janus()
    assert graphs_of(model) is None
    sample(model, "generation", prompts)
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert recorded.graphs.kept
    assert seen() is None
