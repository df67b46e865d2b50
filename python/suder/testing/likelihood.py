"""Every way to a token's log-probability gives the same: the sampler's, and all of training's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from suder.engine.sampling import sample
from suder.models.base import inference
from suder.testing.findings import Findings
from suder.testing.subject import GUIDANCE, POLICIES, Subject, forced, logprob, stepped, write

EACH = 4  # candidates that are sampled for each input
LONGEST = 24  # tokens of a text that is sampled


def ratio(subject: Subject, found: Findings) -> None:
    """log p reported by the sampler is that of teacher forcing, under guidance as well"""
    model = subject.model
    for direction, guidance in POLICIES:
        condition, _ = subject.given(direction)
        length = min(LONGEST, model.longest_text)
        drawn = sample(
            model, direction, condition, EACH, guidance=guidance, max_new_tokens=length, seed=0
        )
        with inference(model):
            hidden = forced(model, direction, condition, list(drawn.tokens), EACH, guidance)
            again = logprob(hidden)
        what = f"{direction}, guidance {guidance:g}, sampler against teacher forcing"
        found.close(what, torch.cat(list(drawn.logprob)), again, hidden.hidden.dtype)


def step_by_step(subject: Subject, found: Findings) -> None:
    """given tokens have the log p of teacher forcing when they are written one at a time"""
    model = subject.model
    for direction, guidance in POLICIES:
        condition, targets, each = subject.every(direction)
        with inference(model):
            hidden = forced(model, direction, condition, targets, each, guidance)
            expected = logprob(hidden)
        got = stepped(model, direction, condition, targets, each, guidance)
        what = f"{direction}, guidance {guidance:g}, step by step against teacher forcing"
        found.close(what, got, expected, hidden.hidden.dtype)


def take(subject: Subject, found: Findings) -> None:
    """a decoding goes on with some of its sequences as they would have gone on with the others"""
    model = subject.model
    for direction, guidance in POLICIES:
        condition, targets, each = subject.every(direction)
        length = min(8, *map(len, targets))
        rows = torch.stack([ids[:length] for ids in targets]).to(model.device)
        conditions = torch.arange(each)[1:]
        going = (
            (conditions[:, None] * each + torch.tensor([2, 0]) % each).flatten().to(model.device)
        )
        cut = min(2, length - 1)
        with inference(model), model.computing():
            whole, part = (
                model.start(direction, condition, each, length, guidance) for _ in range(2)
            )
            whole.make_room()
            part.make_room()
            expected = write(whole, rows, range(length))[going, cut:]
            write(part, rows, range(cut))
            part = part.take(conditions.to(model.device), going)
            part.make_room()
            got = write(part, rows[going], range(cut, length))
        what = f"{direction}, guidance {guidance:g}, {len(going)} of {len(rows)} sequences"
        found.close(what, got.flatten(), expected.flatten(), whole.weight.dtype)


def group(subject: Subject, found: Findings) -> None:
    """targets that share a condition have the log p that each has alone with it"""
    model = subject.model
    for direction, guidance in POLICIES:
        condition, targets, each = subject.every(direction)
        with inference(model):
            hidden = forced(model, direction, condition, targets, each, guidance)
            together = logprob(hidden)
            alone = [
                logprob(
                    forced(
                        model, direction, condition[i // each : i // each + 1], [ids], 1, guidance
                    )
                )
                for i, ids in enumerate(targets)
            ]
        what = f"{direction}, guidance {guidance:g}, {each} in a group against one at a time"
        found.close(what, together, torch.cat(alone), hidden.hidden.dtype)


def batch(subject: Subject, found: Findings) -> None:
    """log p depends on no other row of the batch: not on how many, how long, or in what order"""
    model = subject.model
    for direction, guidance in POLICIES:
        condition, targets = subject.given(direction)
        count = len(targets)
        back = list(range(count))[::-1]
        turned = condition[back] if isinstance(condition, Tensor) else [condition[i] for i in back]
        with inference(model):
            hidden = forced(model, direction, condition, targets, 1, guidance)
            whole = logprob(hidden).split([len(ids) for ids in targets])
            alone = [
                logprob(forced(model, direction, condition[i : i + 1], [ids], 1, guidance))
                for i, ids in enumerate(targets)
            ]
            other = logprob(forced(model, direction, turned, targets[::-1], 1, guidance))
        steps = stepped(model, direction, condition, targets, 1, guidance)
        one_step = [
            stepped(model, direction, condition[i : i + 1], [ids], 1, guidance)
            for i, ids in enumerate(targets)
        ]
        where, dtype = f"{direction}, guidance {guidance:g}", hidden.hidden.dtype
        found.close(f"{where}, {count} rows against one", torch.cat(whole), torch.cat(alone), dtype)
        found.close(f"{where}, rows in reverse order", other, torch.cat(whole[::-1]), dtype)
        found.close(
            f"{where}, {count} rows against one, stepped", steps, torch.cat(one_step), dtype
        )


def guidance(subject: Subject, found: Findings) -> None:
    """scale 1 is no guidance, and scale s mixes logits: uncond + s * (cond - uncond)"""
    model = subject.model
    condition, targets = subject.given("generation")
    condition, targets = condition[:1], targets[:1]
    with inference(model):
        plain = model("generation", condition, torch.stack(targets))
        uncond, cond, guided = (
            forced(model, "generation", condition, targets, 1, scale)
            for scale in (0.0, 1.0, GUIDANCE)
        )
        found.same("guidance 1 against none", cond.hidden, plain.hidden)
        found.differ("guidance 0 against 1, which sees the prompt", uncond.hidden, cond.hidden)
        logits = [
            F.linear(
                one.hidden.float(),
                one.weight.float(),
                None if one.bias is None else one.bias.float(),
            )
            for one in (uncond, cond)
        ]
        mixed = torch.lerp(logits[0], logits[1], GUIDANCE).log_softmax(-1)
        expected = mixed.gather(-1, guided.target[:, None])[:, 0]
        got = logprob(guided)
    found.close(f"guidance {GUIDANCE:g}, of mixed logits", got, expected, cond.hidden.dtype)
