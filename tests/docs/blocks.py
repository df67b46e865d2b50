"""The fenced blocks of a page, and the command lines in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    line: int
    text: str
    words: list[str]
    prints: str
    """What the page says it prints; nothing said: anything."""


def blocks(page: str) -> list[Block]:
    """In their order. What is indented and in no fence is commands."""
    found = [
        Block(page.count("\n", 0, fence.start()) + 2, fence[1], fence[2])
        for fence in FENCE.finditer(page)
    ]
    outside = FENCE.sub(lambda fence: re.sub(r"[^\n]", "x", fence[0]), page)  # as many lines
    for indented in INDENTED.finditer(outside):
        line = outside.count("\n", 0, indented.start()) + 1
        found.append(Block(line, "bash", textwrap.dedent(indented[0])))
    return sorted(found, key=lambda block: block.line)


def commands(block: Block) -> list[Command]:
    """Of `bash` every line; of `console` those behind a `$`, and what stands below each."""
    told = block.language == "console"
    lines = block.text.splitlines()
    found: list[tuple[int, str, list[str]]] = []
    continued = False
    for number, line in enumerate(lines):
        if continued:
            found[-1] = (found[-1][0], found[-1][1] + line, found[-1][2])
        elif told and not line.startswith("$ "):
            found[-1][2].append(line)
            continue
        elif line.strip() and not line.startswith("#"):
            found.append((block.line + number, line.removeprefix("$ "), []))
        if found and (continued := found[-1][1].endswith("\\")):
            found[-1] = (found[-1][0], found[-1][1][:-1], found[-1][2])
    return [
        Command(line, text.strip(), shlex.split(text, comments=True), "\n".join(prints))
        for line, text, prints in found
    ]
