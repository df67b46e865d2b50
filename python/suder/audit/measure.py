"""`audit`: everything about both rewards of some pictures and texts, and a verdict of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suder.audit.groups import Groups, make_groups
from suder.audit.material import Material
from suder.audit.numbers import Correlation, Preference, Spread, inside, spread
from suder.audit.partners import Partners, judge_partners, score_partners
from suder.audit.verdict import THRESHOLDS, WORDS, Verdict, judge_reward
from suder.engine.sampling import sample
from suder.method.judge import SelfJudge
from suder.method.rewards import DualReward
from suder.models.base import DIRECTIONS, Direction, UnifiedModel, inference

Step = Callable[[str, int, int], None]  # what is being done, how much of it is, of how much


@dataclass(frozen=True)
class OfReward:
    """One direction's reward.

    Attributes:
        matching: of partners; `length`: rank correlation with the length among wrong ones.
        spread, agreement, own_answer, length_inside: of the groups; the last two rank correlations
            are with the model's own yes and with the candidates' lengths.
    """

    matching: Preference
    length: Correlation
    spread: Spread
    agreement: Correlation
    own_answer: Correlation | None
    length_inside: Correlation
    verdict: Verdict


@dataclass(frozen=True)
class Audit:
    """
    Attributes:
        rewards, partners, groups: by direction: "understanding" is R_U, of captions.
        own_captions: the partners' captions are the model's own, since none were given.
        judge: how often the model's own yes prefers matching partners; None: it cannot be asked,
            and `no_judge` says why.
    """

    model: str
    material: Material
    captions: list[str]
    own_captions: bool
    candidates: int
    rewards: dict[Direction, OfReward]
    partners: dict[Direction, Partners]
    groups: dict[Direction, Groups]
    judge: Preference | None
    no_judge: str

    @property
    def verdict(self) -> str:
        """The worse of both directions'."""
        return max((one.verdict.word for one in self.rewards.values()), key=WORDS.index)

    def as_object(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        rewards = {}
        for direction, one in self.rewards.items():
            parts = vars(one).items()
            tree: dict[str, Any] = {name: part and part._asdict() for name, part in parts}
            tree["rewards_of_groups"] = self.groups[direction].reward.tolist()
            rewards[direction] = tree
        return {
            "model": self.model,
            "verdict": self.verdict,
            "thresholds": THRESHOLDS,
            "pictures": list(self.material.names),
            "captions": self.captions,
            "own_captions": self.own_captions,
            "candidates": self.candidates,
            "rewards": rewards,
            "judge": self.judge and self.judge._asdict(),
            "no_judge": self.no_judge,
            "left_out": [list(one) for one in self.material.left_out],
        }


def audit(
    model: UnifiedModel,
    material: Material,
    *,
    name: str = "",
    candidates: int = 8,
    shuffles: int = 8,
    temperature: float = 1.0,
    guidance: float = 1.0,
    max_new_tokens: int | None = None,
    include_eos: bool = True,
    seed: int = 0,
    scorer: DualReward | None = None,
    step: Step = lambda *_: None,
) -> Audit:
    """Looks at both rewards as a run's first round would have them.

    Args:
        candidates: of each group; temperature, guidance, max_new_tokens: how they are drawn.
        shuffles: wrong partners of each input.
        scorer: the rewards; None: the model's own.
        step: is told what is being done.
    """
    scorer = scorer or DualReward(model, include_eos=include_eos)
    judge = SelfJudge(model)
    asked = None if judge.unavailable else judge
    pictures = list(material.pictures)
    with inference(model):
        step("captions", 0, 1)
        captions = list(material.captions or _captions(model, pictures, max_new_tokens, seed))
        done = _counter(step, "matching and shuffled partners", 2 * (1 + shuffles))
        partners = score_partners(scorer, pictures, captions, shuffles, done)
        prompts = list(material.prompts) or list(dict.fromkeys(filter(str.strip, captions)))
        groups: dict[Direction, Groups] = {}
        given: dict[Direction, list[Any]] = {"understanding": pictures, "generation": prompts}
        for direction, inputs in given.items():
            how: dict[str, Any] = {"temperature": temperature, "seed": seed}
            if direction == "generation":
                how["guidance"] = guidance
            else:
                how["max_new_tokens"] = max_new_tokens
            what = "groups of captions" if direction == "understanding" else "groups of pictures"
            done = _counter(step, what, len(inputs))
            groups[direction] = make_groups(
                scorer, asked, direction, inputs, candidates, **how, advance=done
            )
        judged = judge_partners(asked, pictures, captions, shuffles) if asked else None
    return Audit(
        model=name,
        material=material,
        captions=captions,
        own_captions=material.captions is None,
        candidates=candidates,
        rewards={one: _of_reward(partners[one], groups[one]) for one in DIRECTIONS},
        partners=partners,
        groups=groups,
        judge=judged,
        no_judge=judge.unavailable,
    )


def _of_reward(partners: Partners, groups: Groups) -> OfReward:
    matching, length = partners.preference(), partners.length_bias()
    apart = spread(groups.reward)
    agreement = inside(groups.reward, groups.other)
    own_answer = None if groups.judge is None else inside(groups.reward, groups.judge)
    return OfReward(
        matching=matching,
        length=length,
        spread=apart,
        agreement=agreement,
        own_answer=own_answer,
        length_inside=inside(groups.reward, groups.length),
        verdict=judge_reward(matching, length, apart, agreement, own_answer),
    )


def _captions(model: Any, pictures: list[Any], max_new_tokens: int | None, seed: int) -> list[str]:
    """The model's own, greedily."""
    pixels = model.pixels(pictures)
    drawn = sample(
        model, "understanding", pixels, greedy=True, max_new_tokens=max_new_tokens, seed=seed
    )
    return list(model.detokenize(drawn.tokens))


def _counter(step: Step, what: str, total: int) -> Callable[[], None]:
    done = iter(range(1, total + 1))
    step(what, 0, total)
    return lambda: step(what, next(done, total), total)
