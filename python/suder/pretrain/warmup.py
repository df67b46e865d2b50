"""Supervised warm-up of both directions on the supervised split.

Each step takes one batch of (picture, caption) pairs both ways: picture -> caption through the
vision tower and the language model's head, caption -> VQ tokens through the generation head. Some
prompts are dropped, so that guidance has an unconditional branch to subtract. Where the recipe asks
for it, some pictures are shown with a caption, its own or not, and the question whether it is true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import JanusForConditionalGeneration, JanusProcessor

from suder.models.janus.layout import caption_ids, generation_ids, null_ids, understanding_ids
from suder.pretrain.questions import IGNORE, Partners, answers, judging_loss
from suder.pretrain.schedule import up_then_cosine
from suder.pretrain.vq import encode, to_pixels
from suder.settings.fields import Fraction, Positive, Section

Log = Callable[[dict[str, float]], None]


class WarmupSettings(Section):
    """Of the warm-up stage. Pairs and steps decide how imperfect the start model is."""

    pairs: Positive = Field(default=8192, description="made once, then drawn from")
    captions: Positive = Field(
        default=2500,
        description="pairs that teach reading; all teach drawing, which generalises less",
    )
    steps: Positive = Field(default=3000, description="optimiser steps, each of both directions")
    batch: Positive = Field(default=48, description="pairs a step")
    lr: Annotated[float, Field(gt=0.0)] = Field(
        default=2e-3, description="highest rate of the cycle"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(default=0.05, description="AdamW's")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw",
        description="muon: of the layers' matrices (torch.optim.Muon), AdamW of the rest; "
        "of emoji, reading was learnt in less than half the steps",
    )
    muon_lr: Annotated[float, Field(gt=0.0)] = Field(
        default=0.02, description="highest rate of Muon's part"
    )
    captioned: Fraction = Field(
        default=0.33,
        description="pictures read a step, as part of `batch`; reading is learnt the sooner",
    )
    drop_prompt: Fraction = Field(
        default=0.1, description="part of the prompts replaced by the null one"
    )
    judged: Fraction = Field(
        default=0.0,
        description="pictures asked about with yes and no a step, as part of `batch`",
    )


class Pairs(NamedTuple):
    """Pictures uint8 `[N, S, S, 3]`, their VQ tokens int64 `[N, I]`, their captions and the ids."""

    pictures: Tensor
    tokens: Tensor
    prompts: list[Tensor]
    captions: list[Tensor]
    said: Sequence[str]


def prepare_pairs(
    model: JanusForConditionalGeneration,
    processor: JanusProcessor,
    pictures: Tensor,
    captions: Sequence[str],
) -> Pairs:
    """Tokens and ids of everything, once: the VQ model no longer changes."""
    with torch.no_grad():
        batches = [encode(model.model.vqmodel, to_pixels(part))[0] for part in pictures.split(128)]
    return Pairs(
        pictures,
        torch.cat(batches),
        [generation_ids(processor, caption) for caption in captions],
        [caption_ids(processor, caption) for caption in captions],
        captions,
    )


def understanding_loss(
    model: JanusForConditionalGeneration, question: Tensor, pixels: Tensor, captions: list[Tensor]
) -> Tensor:
    """Mean cross-entropy of the captions' tokens, EOS included, given the pictures."""
    janus = model.model
    answer = pad_sequence(captions, batch_first=True, padding_value=IGNORE)
    ids = torch.cat([question.expand(len(answer), -1), answer[:, :-1].clamp(min=0)], dim=1)
    embeds = model.get_input_embeddings()(ids)
    features = janus.get_image_features(pixels, return_dict=True).pooler_output
    place = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embeds)
    embeds = embeds.masked_scatter(place, features)
    # Padding is at the end, where causal attention keeps it from everything that is scored.
    hidden = janus.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, len(question) - 1 :])
    return F.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=IGNORE)


def generation_loss(
    model: JanusForConditionalGeneration, prompts: list[Tensor], tokens: Tensor
) -> Tensor:
    """Mean cross-entropy of VQ tokens `[B, I]` given the prompts."""
    janus = model.model
    words = model.get_input_embeddings()(torch.arange(model.lm_head.out_features))
    codes = torch.arange(janus.vqmodel.config.num_embeddings)
    # One table for words and codes, so that a sequence is one lookup; codes come after the words.
    table = torch.cat([words, model.prepare_embeddings_for_image_generation(codes)])
    inputs = [
        torch.cat([prompt, picture[:-1] + len(words)])
        for prompt, picture in zip(prompts, tokens, strict=True)
    ]
    embeds = F.embedding(pad_sequence(inputs, batch_first=True), table)
    hidden = janus.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])
    place = first[:, None] + torch.arange(tokens.shape[1])
    picked = hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    logits = janus.generation_head(picked)
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def train_warmup(
    model: JanusForConditionalGeneration,
    processor: JanusProcessor,
    pairs: Pairs,
    settings: WarmupSettings,
    *,
    seed: int,
    log: Log,
) -> dict[str, float]:
    """Train everything but the VQ model in place. `log` is called after each step.

    Returns the last losses of both directions, and of the questions if there are any, averaged over
    about 50 steps.
    """
    generator = torch.Generator().manual_seed(seed)
    known = min(settings.captions, len(pairs.tokens))
    captioned = math.ceil(settings.captioned * settings.batch)
    judged = math.ceil(settings.judged * settings.batch)
    partners = Partners(pairs.said[:known])
    question = understanding_ids(processor)
    trained = trainable(model)
    optimizers = _optimizers(model, settings)
    schedules = [up_then_cosine(optimizer, settings.steps) for optimizer in optimizers]
    smooth: dict[str, float] = {}
    for step in range(1, settings.steps + 1):
        rows = torch.randint(len(pairs.tokens), (settings.batch,), generator=generator)
        dropped = torch.rand(settings.batch, generator=generator) < settings.drop_prompt
        prompts = [
            null_ids(processor, pairs.prompts[row]) if drop else pairs.prompts[row]
            for row, drop in zip(rows.tolist(), dropped.tolist(), strict=True)
        ]
        read = torch.randint(known, (captioned,), generator=generator)
        captions = [pairs.captions[row] for row in read.tolist()]
        pixels = to_pixels(pairs.pictures[read])
        understanding = understanding_loss(model, question, pixels, captions)
        generation = generation_loss(model, prompts, pairs.tokens[rows])
        now = {"understanding": understanding.item(), "generation": generation.item()}
        loss = understanding + generation
        if judged:
            shown = torch.randint(known, (judged,), generator=generator)
            texts, truth = partners.draw([pairs.said[row] for row in shown.tolist()], generator)
            asked = answers(processor, texts, truth)
            judging = judging_loss(model, asked, to_pixels(pairs.pictures[shown]))
            loss = loss + judging
            now["judging"] = judging.item()
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        for name, value in now.items():
            smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
        log({"step": step, **smooth})
    return smooth


def _optimizers(
    model: JanusForConditionalGeneration, settings: WarmupSettings
) -> list[torch.optim.Optimizer]:
    """Of every trained weight one. Embeddings, heads and vectors are no matrices to Muon."""
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and ".layers." in name
    ]
    taken = set(map(id, matrices)) if settings.optimizer == "muon" else set()
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [parameter for parameter in trainable(model) if id(parameter) not in taken],
            lr=settings.lr,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )
    ]
    if taken:
        found.append(
            torch.optim.Muon(
                matrices, lr=settings.muon_lr, weight_decay=settings.weight_decay, momentum=0.95
            )
        )
    return found


def trainable(model: JanusForConditionalGeneration) -> list[torch.nn.Parameter]:
    """Freeze the VQ model; give everything else."""
    model.model.vqmodel.requires_grad_(False)
    frozen = {id(parameter) for parameter in model.model.vqmodel.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in frozen]
