"""Four packages of icons in Iconify's format, drawn here: no network, and nobody's pictures."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from suder.world.emoji_files import VERSIONS
from suder.world.emoji_things import THINGS

SHAPES = (
    '<circle cx="16" cy="16" r="9" {paint}/>',
    '<rect x="6" y="9" width="20" height="14" {paint}/>',
    '<path d="M16 5 L27 26 L5 26 Z" {paint}/>',
    '<path d="M5 5 H27 V12 H12 V27 H5 Z" {paint}/>',
    '<ellipse cx="16" cy="16" rx="6" ry="12" {paint}/>',
    '<path d="M16 4 L28 16 L16 28 L4 16 Z" {paint}/>',
)


def body(icon: str, name: str) -> str:
    """A shape and a colour of the icon's own; OpenMoji's has a black line around it."""
    digest = hashlib.sha256(icon.encode()).digest()
    paint = f'fill="hsl({digest[0] * 360 // 256},90%,{35 + digest[1] % 30}%)"'
    if name == "openmoji":
        paint += ' stroke="#000" stroke-width="2"'
    return SHAPES[digest[2] % len(SHAPES)].format(paint=paint)


def package(name: str) -> str:
    icons = {icon: {"body": body(icon, name)} for icon in THINGS.values()}
    return json.dumps({"prefix": name, "icons": icons, "width": 32, "height": 32})


def write_packages(folder: Path) -> Path:
    """Unpacked, as `npm install` leaves them in node_modules."""
    for name in VERSIONS:
        place = folder / "@iconify-json" / name
        place.mkdir(parents=True)
        (place / "icons.json").write_text(package(name))
    return folder


def write_archive(folder: Path, name: str, version: str) -> None:
    """As `npm pack` leaves it."""
    text = package(name).encode()
    with tarfile.open(folder / f"iconify-json-{name}-{version}.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
