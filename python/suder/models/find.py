"""Where a model is: a folder, an embedded model, or the Hugging Face hub; no weights are read."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED = {"shapes": "shapes-1", "shapes-2": "shapes-2", "emoji": "emoji-1"}  # world and seed
FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]  # no code, no pickles
HUB_SECONDS = 10.0


class Found(NamedTuple):
    """A local folder, and the names of files of the model that were not fetched into it."""

    folder: Path
    others: tuple[str, ...] = ()


def find_model(name: str | Path) -> Found:
    """Raises OSError that says what is not there; a mistyped path does not wait for the hub."""
    if str(name) in EMBEDDED:
        return Found(_embedded(str(name)))
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return Found(path)
        if path.exists():
            raise NotADirectoryError(f"load_model: {path} is a file; a model is a folder")
    except (RuntimeError, ValueError):
        pass  # no such user; a NUL in the name: there is nothing there
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    if isinstance(name, Path) or _looks_local(str(name)):
        raise FileNotFoundError(
            f"load_model: there is no folder {str(name)[:200]!r}, nor is that a name on the "
            f"Hugging Face hub (owner/name) or one of {', '.join(EMBEDDED)}"
        )
    return _from_hub(str(name))


def _looks_local(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    plain = all(part.replace("-", "").replace(".", "").replace("_", "").isalnum()
                for part in (owner, rest))  # fmt: skip
    return not slash or not plain or owner.startswith(".") or Path(owner).is_dir()


def _from_hub(name: str) -> Found:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, timeout=HUB_SECONDS)
        folder = snapshot_download(name, revision=info.sha, allow_patterns=FETCHED)
        return Found(Path(folder), tuple(one.rfilename for one in info.siblings or ()))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"load_model: {name!r} is neither a folder here nor a model on the Hugging Face hub "
            "(or one that you may not read)"
        ) from error
    except Exception as error:
        try:
            return Found(Path(snapshot_download(name, local_files_only=True)))
        except Exception:
            raise FileNotFoundError(
                f"load_model: {name!r} is no folder here and not in the hub's cache, and the "
                f"Hugging Face hub cannot be reached ({type(error).__name__})"
            ) from error


def _embedded(name: str) -> Path:
    folder = ASSETS / EMBEDDED[name]
    if not (folder / "config.json").is_file():
        world, seed = name.partition("-")[0], EMBEDDED[name][-1]
        raise FileNotFoundError(
            f"load_model: the embedded model {name!r} is not at {folder}; reinstall suder, or make "
            f"it with `suder pretrain --world {world} --seed {seed} --output {folder}`"
        )
    return folder
