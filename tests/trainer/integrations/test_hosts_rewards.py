"""The dual reward as verl, OpenRLHF and ms-swift call it; their calls are written down here.

Their packages need ray, vllm, deepspeed or older libraries than ours, so that stand-ins call; what
can be had of them without a GPU calls in tests/hosts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import io
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import suder
from suder.inputs.files import DataError
from suder.integrations import openrlhf, swift, verl
from suder.integrations.scoring import MISSING
from suder.models.base import NotFinite

CAPTIONS = ["a red circle", "two green circle", "", "a blue square"]
PROMPTS = ["a red circle", "a blue square"] * 2


@pytest.fixture
def pictures(janus: Any) -> list[np.ndarray]:
    side = janus.image_size
    return list(np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8))


@pytest.fixture
def files(pictures: list[np.ndarray], tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{i}.png") for i in range(len(pictures))]
    for path, one in zip(paths, pictures, strict=True):
        Image.fromarray(one).save(path)
    return paths


@pytest.fixture
def expected(janus: Any, pictures: list[np.ndarray]) -> Any:
    found = suder.DualReward(janus).understanding(pictures, CAPTIONS).tolist()
    assert math.isnan(found[2])
    found[2] = MISSING
    return pytest.approx(found, rel=1e-5)


@pytest.fixture
def tokens(janus: Any) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(janus.image_vocab_size, (4, janus.num_image_tokens))


@pytest.fixture
def drawn(janus: Any, tokens: torch.Tensor) -> Any:
    found = suder.DualReward(janus).generation(PROMPTS, tokens).tolist()
    return pytest.approx(found, rel=1e-5)


def spelled(row: Any) -> str:
    return "".join(f"<{int(code)}>" for code in row)


def read(text: str) -> list[int]:
    return [int(code) for code in text.replace("<", " ").replace(">", " ").split()]


def module_of(lines: str, path: Path) -> ModuleType:
    """A user's file, executed as the hosts do."""
    path.write_text(lines)
    spec = importlib.util.spec_from_file_location("users_own", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def verls_manager(compute_score: Any, rows: list[dict[str, Any]]) -> list[float]:
    """verl 0.9: a function that is no coroutine runs in threads, a row each, by keyword."""
    assert not inspect.iscoroutinefunction(compute_score)
    loop = asyncio.get_running_loop()
    extra = {"num_turns": None, "rollout_reward_scores": {}}
    tasks = [
        loop.run_in_executor(
            None,
            partial(
                compute_score,
                data_source="mine",
                solution_str=row["solution"],
                ground_truth=row["truth"],
                extra_info={**row.get("extra", {}), **extra},
            ),
        )
        for row in rows
    ]
    return list(await asyncio.gather(*tasks))


def test_verl_captions(janus: Any, files: list[str], pictures: Any, expected: Any) -> None:
    def scored(reward: Any, rows: list[dict[str, Any]]) -> list[float]:
        return asyncio.run(verls_manager(reward, rows))

    reward = verl.DualReward(janus)
    texts = [{"solution": text} for text in CAPTIONS]
    assert scored(reward, [r | {"truth": f} for r, f in zip(texts, files, strict=True)]) == expected
    rows = [{"extra": {"images": [f]}, "truth": None} for f in files]
    assert scored(reward, [r | x for r, x in zip(texts, rows, strict=True)]) == expected
    named = [{"extra": {"shown": one}, "truth": "x"} for one in pictures]
    shown = verl.DualReward(janus, column="shown")
    assert scored(shown, [r | x for r, x in zip(texts, named, strict=True)]) == expected
    assert type(reward("mine", CAPTIONS[0], files[0], None, reward_router_address="x")) is float


def test_verl_pictures(janus: Any, tokens: torch.Tensor, drawn: Any) -> None:
    reward = verl.DualReward(janus, "generation", codes=read)
    pairs = list(zip(tokens, PROMPTS, strict=True))
    rows = [{"solution": spelled(row), "truth": text} for row, text in pairs]
    assert asyncio.run(verls_manager(reward, rows)) == drawn
    named = verl.DualReward(janus, "generation", column="text", codes=read, missing=-9.0)
    extra = [{"solution": spelled(row), "truth": "", "extra": {"text": t}} for row, t in pairs]
    assert asyncio.run(verls_manager(named, extra)) == drawn
    assert named("mine", "<1>", "", {"text": "a"}) == -9.0


def test_verl_reads_a_users_file(tmp_path: Path) -> None:
    lines = "from suder.integrations.verl import DualReward\ncompute_score = DualReward('shapes')\n"
    module = module_of(lines, tmp_path / "reward.py")
    side = module.compute_score.reward.model.image_size
    white = np.full((side, side, 3), 255, dtype=np.uint8)
    assert -20 < module.compute_score("mine", "a red circle", white) < 0


def test_openrlhf_captions(janus: Any, files: list[str], pictures: Any, expected: Any) -> None:
    reward = openrlhf.DualReward(janus)
    prompts = [f"<|im_start|>user\nline {i}<|im_end|>\n" for i in range(4)]
    queries = [p + c + "<|im_end|>x" for p, c in zip(prompts, CAPTIONS, strict=True)]
    found = reward(queries, prompts, files)
    assert found["rewards"].dtype == torch.float32
    assert found["rewards"].tolist() == expected
    assert found["scores"].tolist() == expected
    assert found["extra_logs"]["dual_reward_understanding"].tolist() == expected

    async def executor() -> list[dict[str, Any]]:  # OpenRLHF 0.11: a thread and a list of one each
        return await asyncio.gather(
            *(
                asyncio.to_thread(reward, queries[i : i + 1], prompts[i : i + 1], [pictures[i]])
                for i in range(4)
            )
        )

    assert [one["rewards"].item() for one in asyncio.run(executor())] == expected


def test_openrlhf_pictures(janus: Any, tokens: torch.Tensor, drawn: Any) -> None:
    reward = openrlhf.DualReward(janus, "generation", codes=read)
    queries = ["draw: " + spelled(row) + "</s>" for row in tokens]
    assert reward(queries, ["draw: "] * 4, PROMPTS)["rewards"].tolist() == drawn
    with pytest.raises(ValueError, match="begins with its prompt, got 'draw"):
        reward(queries[:1], ["write: "], PROMPTS[:1])


def test_openrlhf_reads_a_users_file(tmp_path: Path) -> None:
    lines = "from suder.integrations.openrlhf import DualReward\nreward_func = DualReward('shapes')"
    module = module_of(lines, tmp_path / "reward_func.py")
    side = module.reward_func.reward.model.image_size
    white = np.full((side, side, 3), 255, dtype=np.uint8)
    assert -20 < module.reward_func(["ab"], ["a"], [white])["rewards"].item() < 0


@pytest.fixture
def orms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """ms-swift's table of reward functions, without ms-swift."""
    module = ModuleType("swift.rewards")
    module.orms = {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", module)
    return module.orms  # type: ignore[attr-defined, no-any-return]


def swifts_call(orms: dict[str, Any], name: str, samples: list[dict[str, Any]]) -> list[float]:
    """ms-swift 4.6: made once with args, called with all columns, None for an absent value."""
    reward = orms[name](args=object())
    completions = [one["messages"][-1]["content"] for one in samples]
    keys = {key for one in samples for key in one}
    columns = {key: [one.get(key) for one in samples] for key in keys}
    found = reward(completions, trainer_state=None, **columns)
    assert len(found) == len(samples)
    return list(found)


def test_swift_captions(
    janus: Any, files: list[str], pictures: Any, expected: Any, orms: dict[str, Any]
) -> None:
    swift.register("dual", janus)
    swift.register("shown", janus, column="shown")
    asked = {"role": "user", "content": "<image>describe"}
    turns = [[asked, {"role": "assistant", "content": text}] for text in CAPTIONS]
    rows = [
        {"messages": one, "images": [{"bytes": None, "path": f}]}
        for one, f in zip(turns, files, strict=True)
    ]
    assert swifts_call(orms, "dual", rows) == expected
    shown = [{"messages": one, "shown": x} for one, x in zip(turns, pictures, strict=True)]
    assert swifts_call(orms, "shown", shown) == expected
    buffers = []
    for one in pictures:
        buffers.append(io.BytesIO())
        Image.fromarray(one).save(buffers[-1], "PNG")
    packed = [
        {"messages": one, "shown": {"bytes": b.getvalue(), "path": None}}
        for one, b in zip(turns, buffers, strict=True)
    ]
    assert swifts_call(orms, "shown", packed) == expected


def test_swift_pictures(janus: Any, tokens: torch.Tensor, drawn: Any, orms: dict[str, Any]) -> None:
    swift.register("dual", janus, direction="generation")
    swift.register("cut", janus, direction="generation", codes=lambda ids: [i - 9 for i in ids[1:]])
    turns = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "?"}]
        for text in PROMPTS
    ]
    for name, ids in (
        ("dual", [[row] for row in tokens.tolist()]),  # a list for each of the answer's turns
        ("dual", tokens.tolist()),
        ("cut", [[[0, *(code + 9 for code in row)]] for row in tokens.tolist()]),
    ):
        rows = [
            {"messages": one, "response_token_ids": two}
            for one, two in zip(turns, ids, strict=True)
        ]
        assert swifts_call(orms, name, rows) == drawn


def test_what_is_refused(janus: Any, tmp_path: Path) -> None:
    for host in (verl, openrlhf, swift):
        with pytest.raises(ValueError, match="takes understanding or generation, got 'both'"):
            host.DualReward(janus, "both")
        with pytest.raises(ValueError, match="missing: give a number below any reward"):
            host.DualReward(janus, reduction="sum")
        assert host.DualReward(janus, reduction="sum", missing=-1e4).missing == -1e4
    for host in (verl, openrlhf):
        with pytest.raises(ValueError, match="codes: 'generation' needs"):
            host.DualReward(janus, "generation")
    with pytest.raises(ValueError, match=r"no column 'shown' in extra_info, which has \['image'\]"):
        verl.DualReward(janus, column="shown")("mine", "a", None, {"image": 1})
    with pytest.raises(ValueError, match=r"no column 'images' among \['shown'\]"):
        swift.DualReward(janus)(["a"], shown=[1])
    with pytest.raises(ValueError, match="takes 'bytes' or 'path' of an image, got"):
        verl.DualReward(janus)("mine", "a", {"width": 3})
    with pytest.raises(DataError, match=r"none\.png"):
        verl.DualReward(janus)("mine", "a", str(tmp_path / "none.png"))


def test_a_model_of_nan_is_said(janus: Any, pictures: Any) -> None:
    reward = verl.DualReward(janus, scorer="frozen")
    with torch.no_grad():
        for weight in reward.reward.model.parameters():
            weight.fill_(math.nan)
    with pytest.raises(NotFinite, match="weights hold NaN"):
        reward("mine", CAPTIONS[0], pictures[0])


def test_importable_without_hosts() -> None:
    code = (
        "import sys\nfor name in ('verl', 'openrlhf', 'swift', 'trl'): sys.modules[name] = None\n"
    )
    code += "from suder.integrations import openrlhf, swift, trl, verl"
    subprocess.run([sys.executable, "-c", code], check=True)
