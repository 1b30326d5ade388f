"""A conversation written the way a model was trained to read it. Knows no tokens, only text.

A chat template is a program that came with the checkpoint. It runs in jinja's immutable sandbox with what transformers
gives it and no more. Its size is bounded, its output, what `*` and `**` make in it, and its time, which is looked at in
every round of a loop and every call of a macro. The memory that it takes in other ways (a text joined to itself again
and again, padding) is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outrider.errors import ModelError

MAX_TEMPLATE_LENGTH = 256 * 1024
MAX_OUTPUT_LENGTH = 16 * 1024 * 1024
MAX_SECONDS = 10


def render(
    template: str | None,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt's text for a conversation.

    Args:
        template: the checkpoint's, or None if it has none.
        messages: each with a "role" and a "content".
        special_tokens: by name, as `Tokenizer.special_tokens` has them.
        add_generation_prompt: end where the model's answer begins.

    Raises:
        ModelError: there is no template, it is too large or takes too long, or it fails on these messages.
    """
    if template is None:
        raise ModelError("this checkpoint has no chat template: give the text as it is with --prompt, without --chat")
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise _failed(f"it has {len(template)} characters, and at most {MAX_TEMPLATE_LENGTH} are read")
    values = {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **special_tokens,
    }
    text = ""
    try:
        for part in _Sandbox().compile_bounded(template).generate(values):
            text += part
            if len(text) > MAX_OUTPUT_LENGTH:
                break
    except Exception as error:  # a template can raise whatever Python can
        raise _failed(" ".join(str(error).split())) from error
    if len(text) > MAX_OUTPUT_LENGTH:
        raise _failed(f"it writes more than {MAX_OUTPUT_LENGTH} characters")
    return text


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja's, for one rendering: with what transformers adds, and with bounds."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols])
        self.filters["tojson"] = _to_json
        self._deadline = time.monotonic() + MAX_SECONDS

    def compile_bounded(self, source: str) -> Template:
        """The template, with a look at the clock in all that can run more than once."""
        parsed = self.parse(source)
        for node in parsed.find_all((nodes.For, nodes.Macro)):
            look = nodes.Call(nodes.EnvironmentAttribute("check_time"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(look, lineno=node.lineno))
        return self.from_string(parsed, {"raise_exception": _raise_exception, "strftime_now": _strftime_now})

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateError(f"it takes more than {MAX_SECONDS} seconds")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _size(operator, left, right) > MAX_OUTPUT_LENGTH:
            raise TemplateError(f"its {operator} makes more than {MAX_OUTPUT_LENGTH} characters, entries or bits")
        return super().call_binop(context, operator, left, right)


def _size(operator: str, left: object, right: object) -> int:
    """Of a product or a power, before it is made: how long a sequence, how many bits of a number."""
    match left, right:
        case int(), int():
            return left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        case (Sized() as sequence, int(count)) | (int(count), Sized() as sequence):
            return len(sequence) * count
        case _:
            return 0


class _GenerationBlock(Extension):
    """`{% generation %}` marks the model's own words for training; here it means its content."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT002 - a template may give it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT002
) -> str:
    # jinja's own escapes HTML and sorts keys
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(template: str) -> str:
    return datetime.now().astimezone().strftime(template)


def _failed(reason: str) -> ModelError:
    return ModelError(f"the checkpoint's chat template fails: {reason}: change the messages, or use --prompt")
