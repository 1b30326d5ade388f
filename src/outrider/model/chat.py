"""A conversation written the way a model was trained to read it. Knows no tokens, only text.

A chat template is a program that came with the checkpoint. It runs in jinja's immutable sandbox with what transformers
gives it and no more; its size and its output are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outrider.errors import ModelError

MAX_TEMPLATE_LENGTH = 256 * 1024
MAX_OUTPUT_LENGTH = 16 * 1024 * 1024


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
        ModelError: there is no template, it is too large, or it fails on these messages.
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
    functions = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    text = ""
    try:
        for part in _environment().from_string(template, functions).generate(values):
            text += part
            if len(text) > MAX_OUTPUT_LENGTH:
                break
    except Exception as error:  # a template can raise whatever Python can
        raise _failed(" ".join(str(error).split())) from error
    if len(text) > MAX_OUTPUT_LENGTH:
        raise _failed(f"it writes more than {MAX_OUTPUT_LENGTH} characters")
    return text


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    return environment


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
