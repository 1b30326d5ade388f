"""Conversations as transformers writes them, and templates that misbehave."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from outrider.errors import ModelError
from outrider.model import chat
from outrider.model.chat import render

MESSAGES = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "  What is 'é'?\n"},
    {"role": "assistant", "content": "A letter."},
    {"role": "user", "content": "And ☃?"},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

TEMPLATES = {
    "chatml": """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    "llama": """{{- bos_token }}
{%- if tools is not none %}{{ 'tools' }}{% endif %}
{%- for message in messages %}
    {%- set content = '<|' + message.role + '|>' + message.content | trim %}
    {{- content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{%- endfor %}""",
    "blocks": """    {% for message in messages %}
        {% if message.role == 'system' %}{% continue %}{% endif %}
        {% generation %}
    {% set inner = message.content %}{{ inner | trim }}
        {% endgeneration %}
        {{ inner is defined }}
        {% if loop.index > 2 %}{% break %}{% endif %}
    {% endfor %}""",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'b': 'é', 'a': 1} | tojson(True) }}",
    "names": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "dates": "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_conversation_reads_as_transformers_writes_it(template, add_generation_prompt):
    theirs, _ = render_jinja_template(
        [MESSAGES], chat_template=template, add_generation_prompt=add_generation_prompt, **SPECIAL
    )
    assert render(template, MESSAGES, SPECIAL, add_generation_prompt=add_generation_prompt) == theirs[0]


def test_without_a_template_the_remedy_is_a_prompt():
    with pytest.raises(ModelError, match=r"no chat template.*--prompt"):
        render(None, MESSAGES, SPECIAL)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{% for %}", "fails"),
        ("{{ messages[9].content }}", "fails"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__['json'] }}", "unsafe"),
        ("{% set _ = messages.append(1) %}", "unsafe|not safely"),
        ("{% include 'other' %}", "fails"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "too big"),
        ("x" * (chat.MAX_TEMPLATE_LENGTH + 1), "characters"),
        ("{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "writes more than"),
        ("{{ 'x' * 10**10 }}", r"its \* makes more than"),
        ("{{ (10**10 * messages) | length }}", r"its \* makes more than"),
        ("{{ 10 ** (10 ** 10) > 0 }}", r"its \*\* makes more than"),
    ],
)
def test_a_template_that_misbehaves_is_one_clear_line(template, said):
    with pytest.raises(ModelError, match=said) as caught:
        render(template, MESSAGES, SPECIAL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
        "{% for i in [1, 2] recursive %}{% if loop.depth < 50 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    ],
)
def test_a_template_that_does_not_end_is_ended(template, monkeypatch):
    monkeypatch.setattr(chat, "MAX_SECONDS", 0.05)
    with pytest.raises(ModelError, match=r"takes more than 0.05 seconds"):
        render(template, MESSAGES, SPECIAL)


def test_ordinary_arithmetic_is_left_alone():
    template = "{{ 3 * 4 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1.5 * 2 }} {{ 2 * 'ab' }} {{ [1] * 2 }}"
    assert render(template, MESSAGES, SPECIAL) == "12 1024 0.5 3.0 abab [1, 1]"
