"""Text to token ids and back, as the checkpoint's tokenizer.json says. Knows no model and no chat format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from outrider.errors import ModelError, ParameterError
from outrider.files import read_text
from outrider.model.fields import Fields

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
MAX_TEMPLATE_BYTES = 16 * 1024 * 1024
REPLACEMENT = "\ufffd"  # what bytes that are no character, or not yet, are decoded to


class Tokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        chat_template: how the model wants a conversation written, if it says so.
        special_tokens: the tokens that have a role, by name ("bos_token", "eos_token", ...).
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], chat_template: str | None = None
    ) -> None:
        # a file may ask to cut or pad what it encodes, which is not for a prompt
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._texts: dict[int, str] = {}  # of single tokens: streams ask for the last one's again and again
        self.special_tokens = special_tokens
        self.chat_template = chat_template

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json and, where they are, tokenizer_config.json and chat_template.jinja.

        Raises:
            ModelError: there is no tokenizer.json, or a file is damaged.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            raise ModelError(
                f"{path} is missing, so text cannot be encoded: save the tokenizer there with transformers' "
                "save_pretrained, or give token ids"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # it raises nothing more exact
            raise ModelError(f"{path} is damaged ({error}): download it again") from error
        config_path = folder / "tokenizer_config.json"
        fields = Fields.read(config_path) if config_path.exists() else Fields(path=config_path, values={})
        return cls(backend, _read_special_tokens(fields), _read_chat_template(fields, folder / "chat_template.jinja"))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The text's token ids. A rendered chat brings its special tokens and wants none added."""
        try:
            return self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise ParameterError(f"the prompt is not valid Unicode text ({error}): give it as UTF-8") from error

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the tokens, without special ones."""
        if len(token_ids) != 1:
            return self._backend.decode(token_ids, skip_special_tokens=True)
        text = self._texts.get(token_ids[0])
        if text is None:
            text = self._texts[token_ids[0]] = self._backend.decode(token_ids, skip_special_tokens=True)
        return text

    def stream(self, prompt: Sequence[int] = ()) -> TextDecoder:
        """A decoder for the tokens that follow a prompt, one by one."""
        return TextDecoder(self, prompt)

    def first_difference(self, other: Tokenizer) -> str | None:
        """In words, the first id that stands for another token; None if the two vocabularies are the same."""
        ours, theirs = (_tokens_by_id(tokenizer._backend) for tokenizer in (self, other))  # noqa: SLF001
        for token_id in sorted(ours.keys() | theirs.keys()):
            if ours.get(token_id) != theirs.get(token_id):
                return f"id {token_id} is {ours.get(token_id)!r} in one and {theirs.get(token_id)!r} in the other"
        return None

    @property
    def vocab_size(self) -> int:
        """Tokens that have a text; a model may have more rows."""
        return self._backend.get_vocab_size()


class TextDecoder:
    """The text of one output, token by token: a character of several tokens comes with its last.

    New tokens are decoded together with those before them, since a decoder may drop the space that a text begins with.

    [0, num_told)      the prompt, then the tokens of the last piece: their text is told
    [num_told, ...)    tokens whose text is not, because it ends within a character
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._decode = tokenizer.decode
        self._token_ids = list(prompt)
        self._num_told = len(prompt)

    def push(self, token_id: int) -> str:
        """The text that this token completes."""
        self._token_ids.append(token_id)
        piece = self.finish()
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        del self._token_ids[: self._num_told]
        self._num_told = len(self._token_ids)
        return piece

    def finish(self) -> str:
        """What an output that ends within a character still shows of it."""
        told, text = self._decode(self._token_ids[: self._num_told]), self._decode(self._token_ids)
        if text.startswith(told):
            return text[len(told) :]
        # an invalid byte can turn the whole characters before it into replacements: what was told stays
        return self._decode(self._token_ids[self._num_told :])


def _tokens_by_id(backend: tokenizers.Tokenizer) -> dict[int, str]:
    return {token_id: token for token, token_id in backend.get_vocab().items()}


def _read_special_tokens(fields: Fields) -> dict[str, str]:
    """A token is written as its text, or as an object with its text under "content"."""
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKEN_NAMES:
        match fields.values.get(name):
            case None:
                pass
            case str(token) | {"content": str(token)}:
                tokens[name] = token
            case _:
                raise fields.wrong(name, "a token's text, or an object with its content")
    return tokens


def _read_chat_template(fields: Fields, path: Path) -> str | None:
    """The file of its own is newer than the entry of the config, which may name several: "default" is for chats."""
    if path.exists():
        return read_text(path, MAX_TEMPLATE_BYTES, "the chat template", ModelError)
    template = fields.values.get("chat_template")
    if isinstance(template, str):
        return template
    for entry in fields.elements("chat_template"):
        match entry:
            case {"name": "default", "template": str(text)}:
                return text
            case _:
                pass
    return None
