"""What the numbers mean for a run, in plain words, and from where on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from suder.audit.numbers import Correlation, Preference, Spread

Word = Literal["fine", "at odds", "length-biased", "flat"]
WORDS: tuple[Word, ...] = ("fine", "at odds", "length-biased", "flat")  # the worst last

TELLS = 3.0  # standard errors that a difference takes to count
BIASED = 0.6  # rank correlation with the length; of the embedded models -0.2 and -0.4
ALIKE = 0.75  # share of groups with nothing to learn from
LOST = 0.5  # share of candidates without a reward

THRESHOLDS = {
    "flat": f"matching partners are not {TELLS:g} standard errors ahead of shuffled ones, or "
    f"{ALIKE:.0%} of the groups have one reward for all, or {LOST:.0%} of the candidates have none",
    "length-biased": f"among partners that are all wrong, the rank correlation with the length is "
    f"{BIASED:g} or more either way, and {TELLS:g} standard errors from 0",
    "at odds": f"inside groups, the rank correlation with the other direction's reward or with the "
    f"model's own yes is {TELLS:g} standard errors below 0",
    "fine": "none of these",
}


class Verdict(NamedTuple):
    word: Word
    why: tuple[str, ...]


def judge_reward(
    matching: Preference,
    length: Correlation,
    inside: Spread | None = None,
    agreement: Correlation | None = None,
    own_answer: Correlation | None = None,
) -> Verdict:
    """The worst of what is found of one direction's reward, and all reasons of any of it.

    Args:
        matching, length: of partners; the rest of groups, where groups were drawn.
    """
    said: list[tuple[Word, str]] = []
    if not tells(matching):
        said.append(("flat", "does not tell matching partners from shuffled ones"))
    if inside is not None and inside.alike >= ALIKE:
        said.append(("flat", f"all candidates have one reward in {inside.alike:.0%} of the groups"))
    if inside is not None and inside.lost >= LOST:
        said.append(("flat", f"{inside.lost:.0%} of the candidates have no reward"))
    if length_biased(length):
        likes = "long" if length.mean > 0 else "short"
        why = f"likes {likes} captions, right or wrong (rank correlation {length.mean:+.2f})"
        said.append(("length-biased", why))
    for name, found in (("the other direction", agreement), ("the model's own yes", own_answer)):
        if found is not None and found.groups > 1 and found.mean < -TELLS * found.error:
            said.append(("at odds", f"ranks candidates against {name} ({found.mean:+.2f})"))
    words: list[Word] = [word for word, _ in said]
    return Verdict(max(words, key=WORDS.index, default="fine"), tuple(why for _, why in said))


def tells(found: Preference) -> bool:
    """Whether matching partners are ahead by more than chance."""
    return found.inputs > 1 and found.margin > TELLS * found.error


def length_biased(found: Correlation) -> bool:
    """Whether the length alone decides much of the reward."""
    return found.groups > 1 and abs(found.mean) >= max(BIASED, TELLS * found.error)
