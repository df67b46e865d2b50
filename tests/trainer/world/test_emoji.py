"""The emoji world: its splits, its pictures, and the packages that it reads."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suder.world import emoji, emoji_files
from suder.world.catalogue import world
from suder.world.emoji import Kind
from suder.world.splits import SPLITS
from tests.trainer.icons import write_archive


def test_every_style_and_every_thing_has_its_equal_part_of_each_split():
    parts = {split: emoji.kinds(split) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [768, 384, 384]
    assert len({kind for part in parts.values() for kind in part}) == 16 * len(emoji.NAMES) == 1536
    for part in parts.values():
        assert set(Counter(kind.style for kind in part).values()) == {len(part) // 16}
        assert set(Counter(kind.thing for kind in part).values()) == {len(part) // 96}
    assert 100 <= sum(map(emoji.held_back, parts["unlabelled"])) <= 156
    assert not any(map(emoji.held_back, parts["test"] + parts["supervised"]))


def test_what_is_never_trained_on_is_composed_of_what_is_captioned():
    captioned = set(emoji.kinds("supervised"))
    for thing in emoji.NAMES:
        for treatment in emoji.TREATMENTS:
            of_it = [Kind(thing, f"{treatment} on {ground}") for ground in emoji.GROUNDS]
            assert len(captioned.intersection(of_it)) == 2
        for ground in emoji.GROUNDS:
            on_it = [Kind(thing, f"{treatment} on {ground}") for treatment in emoji.TREATMENTS]
            assert len(captioned.intersection(on_it)) == 2


def test_the_splits_never_move():
    # Weights are made that were trained on one of them.
    found = [emoji.split_of(Kind("apple", f"painted on {ground}")) for ground in emoji.GROUNDS]
    assert found == ["unlabelled", "test", "supervised", "supervised"]


def test_pictures_and_pairs_show_what_they_may(emoji_world, monkeypatch):
    drawn: list[Kind] = []
    draw = emoji.draw
    monkeypatch.setattr(emoji, "draw", lambda kind, seed: (drawn.append(kind), draw(kind, seed))[1])
    found = world("emoji").pictures(1200, 1)
    assert (found.shape, found.dtype) == ((1200, 32, 32, 3), np.uint8)
    assert set(drawn) == {*emoji.kinds("supervised"), *emoji.kinds("unlabelled")}
    drawn.clear()
    _, said = world("emoji").pairs("supervised", 800, 1)
    assert set(drawn) == set(emoji.kinds("supervised"))
    assert said == [f"{kind.thing}, {kind.style}" for kind in drawn]
    again, _ = world("emoji").pairs("supervised", 40, 1)
    np.testing.assert_array_equal(again, world("emoji").pairs("supervised", 40, 1)[0])
    assert not np.array_equal(again, world("emoji").pairs("supervised", 40, 2)[0])
    words = {word for text in said for word in text.replace(",", " ,").split()}
    assert words <= set(world("emoji").words)


def test_a_treatment_is_what_it_is_called(emoji_world):
    for seed in range(8):
        painted, outlined, grey, sketched = (
            emoji.draw(Kind("apple", f"{treatment} on white"), seed).astype(int)
            for treatment in emoji.TREATMENTS
        )

        def colored(picture: np.ndarray) -> int:
            return int((np.ptp(picture, axis=-1) > 60).sum())

        assert min(colored(painted), colored(outlined)) > 100
        assert colored(grey) == colored(sketched) == 0

        def black(picture: np.ndarray) -> int:
            return int((picture.max(-1) < 60).sum())

        assert min(black(outlined), black(sketched)) > 20
        assert black(painted) == 0
    red, black_line = np.array([200.0, 30.0, 30.0]), np.zeros(3)
    luminance = 0.299 * 200 + (0.587 + 0.114) * 30
    np.testing.assert_allclose(emoji.treated(red, "grey"), [luminance] * 3)
    pale = emoji.treated(red, "sketched")
    assert (pale > 1.5 * luminance).all()
    assert (emoji.treated(black_line, "sketched") == 0).all()


def test_pictures_differ_in_place_and_size_on_the_ground_of_their_style(emoji_world):
    for ground, color in emoji.GROUNDS.items():
        drawn = [emoji.draw(Kind("apple", f"grey on {ground}"), seed) for seed in range(20)]
        assert len({picture.tobytes() for picture in drawn}) == 20
        assert {tuple(int(one) for one in picture[0, 0]) for picture in drawn} == {color}


def test_icons_are_trimmed_and_centred():
    picture = Image.new("RGBA", (192, 192), (0, 0, 0, 0))
    picture.paste((10, 200, 30, 255), (150, 20, 180, 80))
    found = emoji_files.trim(picture)
    rows, columns = np.nonzero(found[..., 3])
    assert (rows.min(), rows.max()) == (12, 83)
    assert (columns.min(), columns.max()) == (30, 65)
    assert tuple(found[48, 48]) == (10, 200, 30, 255)
    with pytest.raises(ValueError, match="an icon of nothing"):
        emoji_files.trim(Image.new("RGBA", (192, 192)))


def test_archives_and_unpacked_folders_give_the_same_drawings(emoji_world, tmp_path, monkeypatch):
    unpacked = emoji_files.read_drawings(["red-apple", "banana"])
    assert (unpacked.shape, unpacked.dtype) == ((2, 4, 96, 96, 4), np.uint8)
    for name in emoji_files.VERSIONS:
        write_archive(tmp_path, name, "1.2.10")
    monkeypatch.setenv("SUDER_EMOJI", str(tmp_path))
    np.testing.assert_array_equal(emoji_files.read_drawings(["red-apple", "banana"]), unpacked)
    # The second time they are read from where the first left them.
    monkeypatch.setattr(emoji_files, "_draw", lambda *_: pytest.fail("drawn again"))
    np.testing.assert_array_equal(emoji_files.read_drawings(["red-apple", "banana"]), unpacked)


def fake_npm(folder: Path, does: str) -> None:
    script = folder / "npm"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)


def test_what_is_missing_is_fetched_by_npm_pack(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")
    source, programs, folder = (tmp_path / name for name in ("source", "bin", "new/folder"))
    source.mkdir()
    programs.mkdir()
    for name, version in emoji_files.VERSIONS.items():
        write_archive(source, name, version)
    archive = f"{source}/iconify-json-${{name%@*}}-${{name#*@}}.tgz"
    fake_npm(
        programs,
        f'echo "$@" >> {source}/asked\n'
        "for last; do :; done\n"
        f"name=${{last##*/}}; {shutil.which('cp')} {archive} .",
    )
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("SUDER_EMOJI", str(folder))
    emoji_files.read_drawings(["banana"])
    asked = (source / "asked").read_text().splitlines()
    assert asked == [
        f"pack --silent @iconify-json/{name}@{version}"
        for name, version in emoji_files.VERSIONS.items()
    ]


def test_what_cannot_be_fetched_is_said_how_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDER_EMOJI", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    package = r"@iconify-json/fluent-emoji-flat@1\.2\.6"
    with pytest.raises(FileNotFoundError, match=f"no npm: run `npm pack {package}` in .*none, or"):
        emoji_files.read_drawings(["banana"])
    fake_npm(tmp_path, "echo no such host >&2; exit 1")
    with pytest.raises(FileNotFoundError, match=rf"{package} \(no such host\): run `npm pack"):
        emoji_files.read_drawings(["banana"])


@pytest.mark.parametrize(
    ("icons", "words"),
    [
        ("{", "no package of icons"),
        ('{"icons": []}', "no package of icons"),
        ('{"icons": {}}', "@iconify-json/noto: no icon 'banana'"),
        (json.dumps({"icons": {"banana": {"body": '<image href="/etc/passwd"/>'}}}), "a picture"),
        (json.dumps({"icons": {"banana": {"body": "<g/>"}}}), "an icon of nothing"),
    ],
)
def test_packages_of_something_else_are_named(emoji_world, tmp_path, monkeypatch, icons, words):
    shutil.copytree(emoji_world / "@iconify-json", tmp_path / "@iconify-json")
    (tmp_path / "@iconify-json/noto/icons.json").write_text(icons)
    monkeypatch.setenv("SUDER_EMOJI", str(tmp_path))
    with pytest.raises(ValueError, match=words):
        emoji_files.read_drawings(["banana"])
    assert not [name for name in os.listdir(tmp_path) if name.startswith("drawings")]


def test_every_package_and_its_licence_is_named():
    text = world("emoji").sources
    for words in ("Fluent Emoji", "Noto Emoji", "Twemoji", "OpenMoji"):
        assert words in text
    for licence in ("MIT", "Apache-2.0", "CC BY 4.0", "CC BY-SA 4.0"):
        assert licence in text
    assert not world("shapes").sources


def test_the_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("SUDER_EMOJI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert emoji_files.emoji_folder() == tmp_path / "suder" / "emoji"
