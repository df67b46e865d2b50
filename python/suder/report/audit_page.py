"""An audit as one self-contained page."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from suder.audit.measure import Audit, OfReward
from suder.audit.numbers import Correlation, Preference
from suder.audit.verdict import THRESHOLDS
from suder.models.base import Direction
from suder.report.audit_curves import length_diagram, partner_diagram, spread_diagram
from suder.report.gallery import picture_url
from suder.report.page import is_ours, render
from suder.storage.files import write_text
from suder.storage.shown import counted

MARK = '<meta name="generator" content="suder audit">'
NAMES: dict[Direction, str] = {
    "understanding": "R_U, reward of captions: log p(picture | caption)",
    "generation": "R_G, reward of pictures: log p(prompt | picture)",
}
SHOWN = 4  # groups of each direction


def write_audit(found: Audit, path: Path, *, replace: bool = False) -> Path:
    """Write the page and return its path.

    Raises:
        FileExistsError: a file that is no audit of ours is there, and `replace` was not asked for.
    """
    if os.path.lexists(path) and not replace and not is_ours(path, (MARK,)):
        raise FileExistsError(
            f"{path} is there and is no audit of suder's; take another --output, or --overwrite to "
            "replace it"
        )
    page = render(
        "audit.html",
        model=found.model,
        verdict=found.verdict,
        facts=_facts(found),
        rewards=[_card(found, one) for one in found.rewards],
        thresholds=THRESHOLDS.items(),
        partner_diagram=partner_diagram(found),
        length_diagram=length_diagram(found),
        spread_diagram=spread_diagram(found),
        captions=_shown(found, "understanding"),
        pictures=_shown(found, "generation"),
        judged=found.judge is not None,
        no_judge=found.no_judge,
        left_out=found.material.left_out,
    )
    write_text(path, page)
    return path


def table(found: Audit) -> list[tuple[str, str, str]]:
    """What was measured, and of R_U and R_G what was found: for the page and for a terminal."""
    both = [found.rewards["understanding"], found.rewards["generation"]]
    rows = [
        ("prefers matching to shuffled", *(_preference(one.matching) for one in both)),
        ("margin, nats a token", *(_margin(one.matching) for one in both)),
        ("with length, wrong partners", *(correlation(one.length) for one in both)),
        ("with length, inside groups", *(correlation(one.length_inside) for one in both)),
        ("spread inside a group, nats", *(f"{one.spread.deviation:.3f}" for one in both)),
        ("groups with one reward for all", *(f"{one.spread.alike:.0%}" for one in both)),
        ("with the other direction's reward", *(correlation(one.agreement) for one in both)),
        ("with the model's own yes", *(_own(one) for one in both)),
        ("verdict", *(one.verdict.word for one in both)),
    ]
    return [(name, left, right) for name, left, right in rows]


def reasons(found: Audit) -> list[str]:
    """Why a verdict is what it is, and what could not be asked, a line each."""
    lines = [
        f"{NAMES[direction].split(',')[0]} {why}"
        for direction, one in found.rewards.items()
        for why in one.verdict.why
    ]
    if found.no_judge:
        lines.append(f"the model's own yes was left out: {found.no_judge}")
    lines += [f"left out: {why}" for _, why in found.material.left_out[:10]]
    return lines


def correlation(found: Correlation) -> str:
    """Such as `+0.31 +- 0.15 (12 groups)`."""
    if not found.groups:
        return "none"
    error = f" +- {found.error:.2f}" if math.isfinite(found.error) else ""
    return f"{found.mean:+.2f}{error} ({counted(found.groups, 'group')})"


def _preference(found: Preference) -> str:
    return f"{found.ahead:.0%} of {found.compared}"


def _margin(found: Preference) -> str:
    return f"{found.margin:+.3f} +- {found.error:.3f}"


def _own(one: OfReward) -> str:
    return "cannot be asked" if one.own_answer is None else correlation(one.own_answer)


def _facts(found: Audit) -> list[str]:
    partner = "the model's own, greedy" if found.own_captions else "given"
    facts = [
        f"{counted(len(found.captions), 'picture')}, captions {partner}",
        f"{counted(len(found.groups['generation'].inputs), 'prompt')}"
        + ("" if found.material.prompts else ", which are those captions"),
        f"groups of {found.candidates}",
    ]
    if found.judge is not None:
        facts.append(f"the model's own yes prefers matching in {_preference(found.judge)}")
    return facts


def _card(found: Audit, direction: Direction) -> dict[str, Any]:
    one = found.rewards[direction]
    place = 1 if direction == "understanding" else 2
    return {
        "name": NAMES[direction],
        "word": one.verdict.word,
        "why": one.verdict.why,
        "rows": [(row[0], row[place]) for row in table(found)[:-1]],
    }


def _shown(found: Audit, direction: Direction) -> list[dict[str, Any]]:
    """The first groups, best and worst as a first round would take them; nothing is picked."""
    groups = found.groups[direction]
    captions = direction == "understanding"
    rows = []
    for place, chosen in enumerate(groups.best_and_worst()[:SHOWN]):
        ends = []
        for name, which in zip(("best", "worst"), chosen or (0, 0), strict=True):
            one = groups.candidates[place][which]
            judge = None if groups.judge is None else groups.judge[place][which]
            ends.append(
                {
                    "name": name,
                    "text": one if captions else "",
                    "picture": "" if captions else picture_url(one),
                    "reward": f"{groups.reward[place][which]:.3f}",
                    "judge": "" if judge is None else f"{judge:.2f}",
                }
            )
        given = groups.inputs[place]
        rows.append(
            {
                "picture": picture_url(given) if captions else "",
                "prompt": "" if captions else given,
                "ends": ends if chosen else [],
                "all": ", ".join(f"{value:.2f}" for value in groups.reward[place]),
            }
        )
    return rows
