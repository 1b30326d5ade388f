"""Text to ids and back, and the names that a tokenizer's files give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from outrider.errors import ModelError, ParameterError
from outrider.model.tokenizer import Tokenizer

EOS = {"eos_token": "</s>"}
TEXT = "def f(x):\n    return 'é ☃ 𝄞'\n"


def byte_tokenizer(*special: str) -> tokenizers.Tokenizer:
    """Bytes and a few merges: any text comes back as it was."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["def return def return"], trainer)
    return tokenizer


WORDS = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁Hello", "▁world", "world"]
FALLBACK = decoders.ByteFallback()
DECODERS = {
    "metaspace": decoders.Sequence([FALLBACK, decoders.Metaspace()]),
    "strip": decoders.Sequence([decoders.Replace("▁", " "), FALLBACK, decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
}


def piece_tokenizer(decoder: str) -> Tokenizer:
    """As of SentencePiece: words with their space before them, bytes for all else, and no space before a text."""
    backend = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "<s>"))
    backend.add_special_tokens(["<s>"])
    backend.decoder = DECODERS[decoder]
    return Tokenizer(backend, {})


def ids_of(parts: list[str | bytes]) -> list[int]:
    """Words are a token each, bytes one for each byte."""
    return [
        id_ for part in parts for id_ in ([WORDS.index(part)] if isinstance(part, str) else [1 + byte for byte in part])
    ]


def stream(tokenizer: Tokenizer, prompt: list[int], output: list[int]) -> list[str]:
    decoder = tokenizer.stream(prompt)
    return [*map(decoder.push, output), decoder.finish()]


def write(folder: Path, backend: tokenizers.Tokenizer, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_text_comes_back(tmp_path):
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_tokenizer("<s>", "</s>"), **EOS))
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode([*ids, 1]) == TEXT  # special tokens have no text
    assert tokenizer.vocab_size == byte_tokenizer("<s>", "</s>").get_vocab_size()


def test_special_tokens_are_added_to_a_prompt_and_not_to_a_chat(tmp_path):
    backend = byte_tokenizer("<s>", "</s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = Tokenizer.from_folder(write(tmp_path, backend))
    plain = tokenizer.encode("def", add_special_tokens=False)
    assert tokenizer.encode("def") == [0, *plain]
    assert tokenizer.encode("<s>def", add_special_tokens=False) == [0, *plain]


def test_a_file_cannot_cut_or_pad_a_prompt(tmp_path):
    backend = byte_tokenizer("<s>")
    backend.enable_truncation(3)
    backend.enable_padding(length=64)
    tokenizer = Tokenizer.from_folder(write(tmp_path, backend))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert 3 < len(tokenizer.encode(TEXT)) < 64


@pytest.mark.parametrize(
    ("eos", "special_tokens"),
    [
        ("</s>", {"bos_token": "<s>", "eos_token": "</s>"}),
        ({"content": "</s>", "lstrip": False}, {"bos_token": "<s>", "eos_token": "</s>"}),
        (None, {"bos_token": "<s>"}),
    ],
)
def test_special_tokens_are_read_in_each_form(tmp_path, eos, special_tokens):
    names = {"eos_token": eos, "bos_token": "<s>"}
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_tokenizer("<s>", "</s>"), **names))
    assert tokenizer.special_tokens == special_tokens


def test_the_chat_template_is_read_wherever_it_stands(tmp_path):
    backend = byte_tokenizer("<s>")
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]
    assert Tokenizer.from_folder(write(tmp_path, backend)).chat_template is None
    assert Tokenizer.from_folder(write(tmp_path, backend, chat_template="inline")).chat_template == "inline"
    assert Tokenizer.from_folder(write(tmp_path, backend, chat_template=named[:1])).chat_template is None
    assert Tokenizer.from_folder(write(tmp_path, backend, chat_template=named)).chat_template == "named"
    (tmp_path / "chat_template.jinja").write_text("file ☃", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).chat_template == "file ☃"


def test_tokenizer_config_may_be_absent(tmp_path):
    folder = write(tmp_path, byte_tokenizer("<s>"))
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.special_tokens == {}
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_missing_and_damaged_files_are_one_clear_line(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing.*token ids"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: eos_token is 7"):
        Tokenizer.from_folder(write(tmp_path, byte_tokenizer("<s>"), eos_token=7))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: chat_template is 7"):
        Tokenizer.from_folder(write(tmp_path, byte_tokenizer("<s>"), chat_template=7))
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"chat_template\.jinja is not UTF-8"):
        Tokenizer.from_folder(tmp_path)


def test_a_text_that_is_not_unicode_is_the_users_mistake(tmp_path):
    tokenizer = Tokenizer.from_folder(write(tmp_path, byte_tokenizer("<s>")))
    with pytest.raises(ParameterError, match="not valid Unicode"):
        tokenizer.encode("a\ud800b")


class TestStream:
    @pytest.mark.parametrize("decoder", DECODERS)
    @pytest.mark.parametrize(
        ("prompt", "output"),
        [
            ([], ["▁Hello", "▁world", "world"]),
            (["▁Hello"], ["▁world", "▁world"]),
            (["▁Hello"], ["▁", "▁", "▁world", "▁", "world"]),
            (["<s>"], ["▁Hello", "<s>", "▁world", "<s>"]),
            (["▁Hello", "<s>"], ["<s>", "▁world"]),
            (["▁Hello", "語".encode()], ["語é".encode(), "▁world", "𝄞".encode(), "▁world"]),
            (["▁Hello"], [b"\xff", "é".encode(), "world", b"\xe8", "▁world"]),
            (["▁Hello"], ["▁world", "語".encode()[:2]]),
        ],
    )
    def test_pieces_together_are_what_the_whole_text_has_more_than_the_prompt(self, decoder, prompt, output):
        tokenizer = piece_tokenizer(decoder)
        ids = ids_of(prompt)
        whole, beginning = tokenizer.decode(ids + ids_of(output)), tokenizer.decode(ids)
        assert whole.startswith(beginning)
        assert "".join(stream(tokenizer, ids, ids_of(output))) == whole[len(beginning) :]

    def test_any_text_may_be_cut_into_prompt_and_output(self):
        tokenizer = Tokenizer(byte_tokenizer(), {})
        ids = tokenizer.encode(TEXT)
        for cut in range(len(ids)):
            beginning = tokenizer.decode(ids[:cut])
            if TEXT.startswith(beginning):  # not within a character
                assert "".join(stream(tokenizer, ids[:cut], ids[cut:])) == TEXT[len(beginning) :]

    @pytest.mark.parametrize("decoder", DECODERS)
    def test_a_character_of_several_tokens_comes_whole(self, decoder):
        output = ids_of(["▁world", "é語".encode()])
        assert stream(piece_tokenizer(decoder), ids_of(["▁Hello"]), output) == [" world", "", "é", "", "", "語", ""]

    @pytest.mark.parametrize("decoder", DECODERS)
    def test_bytes_that_are_no_character_change_nothing_that_was_told(self, decoder):
        """Decoded whole, a run of bytes with one wrong byte is replacements only."""
        tokenizer = piece_tokenizer(decoder)
        spoiled = ids_of(["é".encode(), b"\xff", "▁world"])
        assert stream(tokenizer, [], spoiled) == ["", "é", "", "� world", ""]
        cut = ids_of(["é".encode(), "語".encode()[:2]])
        assert stream(tokenizer, [], cut) == ["", "é", "", "", "��"]
