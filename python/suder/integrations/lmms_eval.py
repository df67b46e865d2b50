"""suder's models in lmms-eval: `lmms_eval --model suder --model_args pretrained=PATH --tasks ...`.

The package's entry point `lmms_eval.models` tells lmms-eval of them; importable without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from suder.engine.sampling import sample
from suder.inputs.as_seen import as_seen, side_by_side
from suder.models import load_model
from suder.models.base import inference
from suder_ext import linear_logprob_stats

try:
    from lmms_eval.api.model import lmms as _Lmms
except ImportError:
    _Lmms = object

LONGEST = 1024  # tokens of an answer where a task does not say
PLACE = "<image>"  # that some tasks put where a picture stands


def manifest() -> Any:
    """What the entry point gives lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="suder", simple_class_path=f"{__name__}.Suder")


class Suder(_Lmms):  # type: ignore[misc] # not there where this is checked
    """A Janus, Emu3 or Liquid as lmms-eval asks a model, by its "simple" interface.

    A model reads one picture: several stand side by side in it. Answers are greedy unless a task
    asks for `do_sample` or a temperature; beams are not searched.

    Args:
        pretrained: for `suder.load_model`, as are `dtype` ("float32", "bfloat16", "float16"),
            `device` and `system_prompt` ("": none).
        batch_size: questions answered at once.
        loglikelihood_as: "loss": the mean negative log p of a continuation's tokens, which is what
            lmms-eval's own models give and its multiple choice takes the least of; "logprob": their
            sum, as its documentation says.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "shapes",
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int | str = 1,
        system_prompt: str | None = None,
        loglikelihood_as: str = "loss",
        **ignored: Any,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("suder in lmms-eval runs in one process; divide tasks by --limit")
        if loglikelihood_as not in ("loss", "logprob"):
            raise ValueError(
                f"loglikelihood_as: takes 'loss' or 'logprob', got {loglikelihood_as!r}"
            )
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype: takes float32, bfloat16 or float16, got {dtype!r}")
        if _Lmms is object:
            self.task_dict: dict[str, Any] = {}
        asked = {} if system_prompt is None else {"system_prompt": system_prompt}
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_model(pretrained, device=where, dtype=getattr(torch, dtype), **asked)
        self.batch_size = max(1, int(batch_size)) if str(batch_size).isdecimal() else 1
        self.loglikelihood_as = loglikelihood_as

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to (context, gen_kwargs, doc_to_visual, doc_id, task, split)."""
        found: dict[int, str] = {}
        for how, places in _alike(requests).items():
            for first in range(0, len(places), self.batch_size):
                part = places[first : first + self.batch_size]
                for place, text in zip(part, self._written(requests, part, how), strict=True):
                    context, options = requests[place].args[:2]
                    found[place] = _cut(text, options.get("until"))
                    hook = getattr(self, "cache_hook", None)
                    if hook is not None:
                        hook.add_partial("generate_until", (context, options), found[place])
        return [found[place] for place in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(see `loglikelihood_as`, whether greedy decoding would say it) of each continuation in
        (context, continuation or doc_to_target, doc_to_visual, doc_id, task, split).
        """
        found = []
        for first in range(0, len(requests), self.batch_size):
            part = requests[first : first + self.batch_size]
            questions, targets = [], []
            for request in part:
                context, target, _, doc_id, task, split = request.args
                if callable(target):
                    target = target(self.task_dict[task][split][doc_id])
                questions.append(_words(context))
                targets.append(self.model.tokenize([str(target)])[0][:-1])  # its end is not in it
            with inference(self.model):
                pixels = self.model.pixels([self._picture(one) for one in part])
                hidden = self.model("understanding", pixels, targets, questions=questions)
                read = linear_logprob_stats(
                    hidden.hidden, hidden.weight, hidden.target, hidden.bias, argmax=True
                )
            logprob, said = read.logprob.double(), read.top1
            ends = hidden.cu_seqlens.tolist()
            for begin, end in pairwise(ends):
                value = float(logprob[begin:end].sum())
                if self.loglikelihood_as == "loss":
                    value = -value / max(1, end - begin)
                found.append((value, bool(said[begin:end].all())))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("suder's models answer one question at a time")

    def _written(self, requests: Sequence[Any], part: Sequence[int], how: Any) -> list[str]:
        longest, temperature, top_p = how
        questions = [_words(requests[place].args[0]) for place in part]
        own = str(self.model.asks["question"])
        room = self.model.longest_text + len(self.model.question_ids(own))
        room -= max(len(self.model.question_ids(question)) for question in questions)
        options: dict[str, Any] = {"greedy": True}
        if temperature > 0:
            options = {"temperature": temperature, "top_p": top_p, "first": part[0]}
        drawn = sample(
            self.model, "understanding",
            self.model.pixels([self._picture(requests[place]) for place in part]),
            questions=questions, max_new_tokens=max(1, min(longest, room)), **options,
        )  # fmt: skip
        assert not isinstance(drawn.tokens, torch.Tensor)
        return self.model.detokenize(drawn.tokens)

    def _picture(self, request: Any) -> np.ndarray:
        _, _, doc_to_visual, doc_id, task, split = request.args
        found = list(_flat(doc_to_visual(self.task_dict[task][split][doc_id])))
        if not found:
            raise ValueError(f"{task}, document {doc_id}: it has no picture, and suder's models "
                             "answer questions about one")  # fmt: skip
        background = self.model.background
        return side_by_side([as_seen(one, background) for one in found], background)


def _alike(requests: Sequence[Any]) -> dict[tuple[int, float, float], list[int]]:
    """Which requests are answered in one way: the longest answer, temperature, top-p."""
    found: dict[tuple[int, float, float], list[int]] = {}
    for place, request in enumerate(requests):
        options = request.args[1]
        temperature = float(options.get("temperature") or (1.0 if options.get("do_sample") else 0))
        how = (int(options.get("max_new_tokens") or LONGEST), temperature,
               float(options.get("top_p") or 1.0))  # fmt: skip
        found.setdefault(how, []).append(place)
    return found


def _words(context: Any) -> str:
    text = context[0] if isinstance(context, list) else context
    return str(text).replace(PLACE, "").strip()


def _cut(text: str, until: Any) -> str:
    for end in [until] if isinstance(until, str) else until or []:
        if end:
            text = text.partition(end)[0]
    return text.strip()


def _flat(visuals: Any) -> Iterator[Any]:
    for one in visuals if isinstance(visuals, list | tuple) else [visuals]:
        if isinstance(one, list | tuple):
            yield from _flat(one)
        elif one is not None:
            yield one
