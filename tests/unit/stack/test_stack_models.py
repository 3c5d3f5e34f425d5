"""Model folders: what is made once is kept, what is half made is not used, what does not exist is refused."""

import json
from pathlib import Path

import pytest

from leyden.stack import models
from leyden.stack.errors import FetchError, StackError
from leyden.stack.models import ensure_model, model_is_cached


def test_a_local_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert ensure_model(str(tmp_path)) == tmp_path
    assert model_is_cached(str(tmp_path))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"has no config\.json"):
        ensure_model(str(tmp_path))


@pytest.mark.parametrize("spec", ["nonsense", "/no/such/folder", "./nor/this"])
def test_a_name_that_means_nothing_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="There is no model"):
        ensure_model(spec, tmp_path)


def test_a_conversion_that_failed_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        (folder / "half.safetensors").write_bytes(b"0")
        raise FetchError("the line was cut")

    def whole(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(models, "_smollm2", half)
    with pytest.raises(FetchError):
        ensure_model(cache=tmp_path)
    assert not model_is_cached(cache=tmp_path)
    monkeypatch.setattr(models, "_smollm2", whole)
    assert ensure_model(cache=tmp_path) == tmp_path / "models" / "smollm2-135m"
    monkeypatch.setattr(models, "_smollm2", half)
    assert (ensure_model(cache=tmp_path) / "config.json").exists()
    assert model_is_cached(cache=tmp_path)


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path))
    with pytest.raises(SystemExit, match=r"^There is no model 'nonsense'; .*\.$"):
        models.main(["nonsense"])


def test_the_tiny_models_tokenizer_knows_its_chat_and_every_byte(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from leyden.stack import tiny

    tiny.write_tokenizer(tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>user\nTom has 23 äpfel ☃<|im_end|>\n"
    encoded = tokenizer.encode(text)
    assert tokenizer.get_vocab_size() == tiny.VOCABULARY
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    assert encoded.ids[0] == 1 and 2 in encoded.ids
    assert "assistant" in json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
