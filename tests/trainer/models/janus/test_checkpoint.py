"""A loaded model is the checkpoint, and a checkpoint runs no code and fills no memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import suder
from suder.models import find

WEIGHTS = "model.safetensors"


@pytest.fixture
def saved(shared_janus, tmp_path):
    folder = tmp_path / "model"
    shared_janus.save(folder)
    return folder


def change(file: Path, **values: Any) -> None:
    tree = json.loads(file.read_text())
    for name, value in values.items():
        *path, last = name.split("__")
        place = tree
        for key in path:
            place = place[key]
        place[last] = value
    file.write_text(json.dumps(tree))


def refused(folder: Path, match: str, error: type[Exception] = ValueError) -> None:
    """At once, in one line."""
    began = time.monotonic()
    with pytest.raises(error, match=match) as caught:
        suder.load_model(folder)
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)


# ---- the weights are all there


@pytest.mark.parametrize("name", ["lm_head.weight", "model.generation_head.vision_head.bias"])
def test_missing_tensors(saved, name):
    """They were made up at random."""
    tensors = load_file(saved / WEIGHTS)
    del tensors[name]
    save_file(tensors, saved / WEIGHTS, {"format": "pt"})
    refused(saved, rf"1 missing \({name}\)")


def test_unexpected_and_misshapen_tensors(saved):
    tensors = load_file(saved / WEIGHTS)
    tensors["model.extra.weight"] = torch.zeros(3)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]
    save_file(tensors, saved / WEIGHTS, {"format": "pt"})
    refused(saved, r"1 unexpected \(model.extra.weight\), 1 of another shape \(lm_head.weight is")


def test_weights_that_are_no_floats(saved):
    tensors = load_file(saved / WEIGHTS)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    save_file(tensors, saved / WEIGHTS, {"format": "pt"})
    refused(saved, r"1 not floating point \(lm_head.weight is I8\)")


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_embeddings(saved, tied):
    tensors = load_file(saved / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, saved / WEIGHTS, {"format": "pt"})
    change(saved / "config.json", tie_word_embeddings=tied)
    if not tied:
        return refused(saved, r"1 missing \(lm_head.weight\)")
    core = suder.load_model(saved).core
    assert core.lm_head.weight is core.get_input_embeddings().weight
    return None


def test_a_config_that_says_tied_of_two_weights(saved, shared_janus, tmp_path):
    """transformers goes by the weights; what is saved again says so."""
    change(saved / "config.json", tie_word_embeddings=True)
    loaded = suder.load_model(saved)
    assert torch.equal(loaded.core.lm_head.weight, shared_janus.core.lm_head.weight)
    loaded.save(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["tie_word_embeddings"] is False
    again = suder.load_model(tmp_path / "again")
    assert torch.equal(again.core.lm_head.weight, shared_janus.core.lm_head.weight)


# ---- what is saved has the checkpoint's dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("asked", [None, torch.float32, torch.bfloat16])
def test_dtype_of_what_is_saved(shared_janus, tmp_path, dtype, asked):
    shared_janus.saved = dtype
    shared_janus.save(tmp_path / "first")
    shared_janus.saved = None
    options = {} if asked is None else {"saved": asked}
    loaded = suder.load_model(tmp_path / "first", **options)
    assert loaded.dtype == torch.float32
    loaded.save(tmp_path / "second")
    wanted = asked or dtype
    with safe_open(tmp_path / "second" / WEIGHTS, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {wanted}  # noqa: SIM118
    config = json.loads((tmp_path / "second/config.json").read_text())
    assert config["dtype"] == str(wanted).removeprefix("torch.")
    assert loaded.dtype == torch.float32  # in memory nothing changed
    if asked is None:
        first, second = ((tmp_path / one / WEIGHTS).read_bytes() for one in ("first", "second"))
        assert first == second


# ---- nothing of it runs


def test_code_of_a_checkpoint_never_runs(saved, monkeypatch):
    """Nor is anybody asked whether it should."""

    def asked(*_: object) -> str:
        raise AssertionError("asked on standard input")

    monkeypatch.setattr("builtins.input", asked)
    flag = saved / "ran"
    (saved / "evil.py").write_text(f"open({str(flag)!r}, 'w')\nclass Evil: pass\n")
    every = {
        name: "evil.Evil"
        for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor",
                     "AutoImageProcessor", "AutoModelForImageTextToText")
    }  # fmt: skip
    names = ["config.json", "processor_config.json", "tokenizer_config.json"]
    names += ["generation_config.json"]
    for name in names:
        change(saved / name, auto_map=every)
    change(saved / "processor_config.json", image_processor__auto_map=every)
    change(saved / "tokenizer_config.json", tokenizer_class="Evil")
    try:
        suder.load_model(saved)
    except ValueError as error:
        assert "tokenizer or picture processor" in str(error)  # noqa: PT017 - either will do
    assert not flag.exists()
    change(saved / "config.json", model_type="evil")
    refused(saved, "is a 'evil' checkpoint")
    assert not flag.exists()


def test_pickles_are_refused_with_the_reason(saved):
    (saved / WEIGHTS).unlink()
    (saved / "pytorch_model.bin").write_bytes(b"anything")
    refused(saved, r"no model\.safetensors; pickles can run any program .* convert", OSError)


# ---- damaged and absurd files


def test_an_index_that_points_elsewhere(saved, shared_janus, tmp_path):
    shared_janus.core.save_pretrained(tmp_path / "cut", max_shard_size="40KB")
    index = tmp_path / "cut" / "model.safetensors.index.json"
    for file in (saved / WEIGHTS, *(tmp_path / "cut").glob("*.safetensors"), index):
        target = saved / file.name
        target.unlink() if file.parent == saved else target.write_bytes(file.read_bytes())
    assert torch.equal(
        suder.load_model(saved).core.lm_head.weight, shared_janus.core.lm_head.weight
    )
    places = json.loads(index.read_text())["weight_map"]
    outside = tmp_path / "cut" / sorted(set(places.values()))[0]
    for name in ("../cut/" + outside.name, str(outside), "..", "gone.safetensors", 3, None):
        change(saved / index.name, weight_map=places | {"lm_head.weight": name})
        refused(saved, r"model\.safetensors\.index\.json names .* no file beside it")
    change(saved / index.name, weight_map=[])
    refused(saved, r"index\.json is damaged: it has no weight_map")


@pytest.mark.parametrize("cut", [0, 7, 100, -1000])
def test_a_truncated_file(saved, cut):
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[:cut])
    refused(saved, r"model\.safetensors is damaged: ")


def test_a_header_of_an_absurd_size(saved):
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes((1 << 62).to_bytes(8, "little") + data[8:])
    refused(saved, r"model\.safetensors is damaged: ")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"model_type": "janus", "a": '])
def test_a_damaged_config(saved, text):
    (saved / "config.json").write_text(text)
    refused(saved, r"config\.json is damaged: ")


def test_a_config_of_megabytes(saved):
    (saved / "config.json").write_text('{"model_type": "janus"' + " " * (17 << 20) + "}")
    refused(saved, r"config\.json has \d+ bytes, and at most")


ABSURD = """
import json, resource, sys
from pathlib import Path
import suder
folder = Path(sys.argv[1])
suder.load_model(folder)  # imports, caches
resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
text = (folder / "config.json").read_text()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for part, name in [(a, b) for a, tree in json.loads(text).items() if isinstance(tree, dict)
                   for b, value in tree.items() if type(value) is int and not b.endswith("_id")]:
    for value in (10**9,) if name != "num_hidden_layers" else (10**9, 10**18, -1):
        tree = json.loads(text)
        tree[part][name] = value
        (folder / "config.json").write_text(json.dumps(tree))
        try:
            suder.load_model(folder)
        except ValueError as error:
            assert "\\n" not in str(error), error
            print(part, name, value, error)
print("kilobytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_absurd_numbers_in_a_config(saved):
    """Each in turn; a billion layers, say. Either it makes no difference or it is refused."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ABSURD, str(saved)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    *lines, last = ran.stdout.splitlines()
    assert int(last.split()[1]) < 200_000
    said = "\n".join(lines)
    for name in ("text_config num_hidden_layers", "vision_config num_hidden_layers"):
        assert f"{name} 1000000000 load_model: " in said
    assert "num_hidden_layers is 1000000000, of a model that has" in said


def test_a_processor_that_cannot_be_read(saved):
    (saved / "tokenizer.json").write_text("{")
    refused(saved, "tokenizer or picture processor in .* cannot be read")


def test_a_tokenizer_of_another_model(saved):
    change(saved / "config.json", image_token_id=5)
    refused(saved, r"image_token_id is 5 in config\.json, but the tokenizer's <image_placeholder>")


# ---- names that lead nowhere


def test_mistyped_paths_do_not_ask_the_hub(tmp_path, monkeypatch):
    def called(*_: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(find, "_from_hub", called)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/modle", "./model", "model", "/no/such/model", "a/b/c", "~/no-such",
                 "~no-such-user/x", "a\0b", "x" * 5000, tmp_path / "a", "shapes-3"):  # fmt: skip
        refused(name, r"there is no folder .* nor is that a name", FileNotFoundError)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file; a model is a folder", OSError)


def test_a_run_in_place_of_its_model(saved):
    refused(saved.parent, r"no config\.json in it; did you mean .*/model\?", OSError)


def test_an_adapter_in_place_of_a_model(saved):
    """transformers would load another model, the one that the adapter names."""
    (saved / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    refused(saved, "holds a PEFT adapter")


def test_a_hub_that_cannot_be_reached(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    refused("no-one/nothing", "no folder here and not in the hub's cache", FileNotFoundError)  # type: ignore[arg-type]
