"""Questions of their own about pictures, as a judge asks them: an adapter need not take any."""

from __future__ import annotations

import torch

from suder.engine.sampling import sample
from suder.models.base import inference
from suder.testing.findings import Findings, Skipped
from suder.testing.subject import Subject, forced, logprob


def questions(subject: Subject, found: Findings) -> None:
    """a question of the target's own stands where the model's own stands, whatever others ask"""
    model = subject.model
    if not getattr(model, "takes_questions", False):
        raise Skipped("takes_questions is not true")
    pixels, targets = subject.pixels, subject.given("understanding")[1]
    seen = pixels[:1].expand(len(targets), *pixels.shape[1:])
    own = str(model.asks["question"])
    asked = [own, *subject.prompts[1:]]
    with inference(model):
        usual = forced(model, "understanding", pixels, targets)
        dtype = usual.hidden.dtype
        same = model("understanding", pixels, targets, questions=[own] * len(targets))
        others = model("understanding", pixels, targets, questions=asked)
        alone = [
            model("understanding", pixels[i : i + 1], [ids], questions=asked[i : i + 1])
            for i, ids in enumerate(targets)
        ]
        shared = model("understanding", pixels[:1], targets, len(targets), questions=asked)
        apart = model("understanding", seen, targets, questions=asked)
        length = min(8, model.longest_text - max(map(len, map(model.question_ids, asked))))
        said = sample(model, "understanding", pixels, 2, max_new_tokens=max(2, length), seed=0,
                      questions=asked)  # fmt: skip
        twice = [question for question in asked for _ in range(2)]
        read_again = model("understanding", pixels, list(said.tokens), 2, questions=twice)
    found.close("the model's own question, asked", logprob(same), logprob(usual), dtype)
    found.differ("log p under another question", logprob(others), logprob(usual))
    one_by_one = torch.cat([logprob(one) for one in alone])
    found.close("questions against one at a time", logprob(others), one_by_one, dtype)
    found.close("questions about one picture", logprob(shared), logprob(apart), dtype)
    what = "answers to questions, sampler against teacher forcing"
    found.close(what, torch.cat(list(said.logprob)), logprob(read_again), dtype)
    found.holds(
        torch.equal(others.target, usual.target)
        and torch.equal(others.cu_seqlens, usual.cu_seqlens),
        "target or cu_seqlens hold more than the targets",
    )
    before = [len(model.question_ids(one)) for one in (own, asked[1])]
    read = [model.tokens_read("understanding", 1, [4], questions=[one]) for one in (own, asked[1])]
    wanted = [count + 3 for count in before]
    found.holds(
        read == wanted and read[0] == model.tokens_read("understanding", 1, [4]),
        f"tokens_read says {read} for four tokens after questions of {before}; takes {wanted}, and "
        "as many as without, for the model's own",
    )
