"""What training needs of the model: gradients where they belong, and the same numbers twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from suder.models.base import DIRECTIONS, Direction, UnifiedModel
from suder.testing.copies import named
from suder.testing.findings import Findings, some
from suder.testing.subject import Subject, forced, logprob
from suder.testing.tolerances import GRADIENT


def no_dropout(subject: Subject, found: Findings) -> None:
    """in evaluation mode, which training uses too, the same input gives the same bits"""
    model = subject.model
    for direction in DIRECTIONS:
        condition, targets = subject.given(direction)
        first, again = (logprob(forced(model, direction, condition, targets)) for _ in range(2))
        found.same(f"{direction}, log p a second time", again, first)


def gradients(subject: Subject, found: Findings) -> None:
    """every trainable weight gets a gradient in one direction or the other, no other weight does"""
    model = subject.model
    learnt = {id(one) for one in model.trainable_parameters()}
    asking = {id(one) for _, one in named(model) if one.requires_grad}
    found.holds(
        learnt == asking and len(learnt) == len(model.trainable_parameters()),
        f"trainable_parameters() gives {len(model.trainable_parameters())} weights; "
        f"{len(asking)} have requires_grad, {len(asking & learnt)} are in both",
    )
    reached: set[str] = set()
    for direction in DIRECTIONS:
        with _gradients(subject, direction) as grads:
            wild = [name for name, grad in grads.items() if not grad.isfinite().all()]
            found.holds(not wild, f"{direction}: gradients not finite at {some(wild)}")
            reached |= {name for name, grad in grads.items() if grad.any()}
    missed = [name for name, one in named(model) if id(one) in learnt and name not in reached]
    found.holds(not missed, f"no gradient reaches {len(missed)} trainable weights: {some(missed)}")
    frozen = [name for name, one in named(model) if id(one) not in learnt and name in reached]
    found.holds(not frozen, f"gradients reach weights that are not trained: {some(frozen)}")
    found.note(f"{len(reached)} weights reached")


def recomputed(subject: Subject, found: Findings) -> None:
    """with checkpoint_activations a gradient is the same"""
    model = subject.model
    before = model.checkpoint_activations
    limit = GRADIENT[subject.dtype]
    for direction in DIRECTIONS:
        try:
            model.checkpoint_activations = False
            with _gradients(subject, direction) as grads:
                kept = {name: grad.clone() for name, grad in grads.items()}
            model.checkpoint_activations = True
            with _gradients(subject, direction) as grads:
                apart = {name: _apart(grads.get(name), grad) for name, grad in kept.items()}
        finally:
            model.checkpoint_activations = before
        far = [f"{name} by {value:.2g}" for name, value in apart.items() if not value <= limit]
        found.holds(
            not far, f"{direction}: gradients differ by more than {limit:g} of them: {some(far)}"
        )


@contextmanager
def _gradients(subject: Subject, direction: Direction) -> Iterator[dict[str, Tensor]]:
    """Those of a mean log p, by weight; gradients that were there before are there again after."""
    model: UnifiedModel = subject.model
    kept = [(one, one.grad) for one in model.parameters()]
    for one, _ in kept:
        one.grad = None
    try:
        condition, targets = subject.given(direction)
        logprob(forced(model, direction, condition, targets)).mean().backward()
        yield {name: one.grad for name, one in named(model) if one.grad is not None}
    finally:
        for one, grad in kept:
            one.grad = grad


def _apart(grad: Tensor | None, expected: Tensor) -> float:
    if grad is None:
        return torch.inf
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((grad - expected).abs().max() / largest)
