"""Chat templates are strangers' programs: they render in bounds, and are named when they do not."""

import json
import time

import pytest

from lco_jax.data.encode import rendering
from lco_jax.data.encode.prompt import Prompter
from tests.tokenizers import CHAT_TEMPLATE, write_tokenizer

_FINE = CHAT_TEMPLATE.replace("MEDIA\n", "")
BEYOND = {
    "nested loops": (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "takes more than 1 s of the processor, the limit",
    ),
    "a long range": ("{% for a in range(10**9) %}{% endfor %}", "counts to 1000000000, and the "),
    "a long text": ("{% for a in range(9999) %}{{ 'much ' * 99 }}{% endfor %}", "writes more than"),
    "a huge text": ("{{ 'x' * 10**10 }}", "needs more memory than the limit"),
    "doubling": (
        "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}",
        "needs more memory than the limit",
    ),
    "a wide field": ("{{ '%9999999999s' % 'x' }}", "memory"),
    "a power": ("{{ 10**(10**8) % 7 }}", "takes more than 1 s of the processor"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails (RecursionError"),
    "no Jinja": ("{% if %}", "is no Jinja: TemplateSyntaxError in line 1"),
    "an end too many": ("a\nb{% endfor %}", "is no Jinja: TemplateSyntaxError in line 2"),
    "an error of its own": ("{{ raise_exception('not so') }}", "fails (TemplateError: not so)"),
    "a missing part": ("{{ nothing.at.all }}", "fails (UndefinedError: 'nothing' is undefined)"),
    "a hidden attribute": ("{{ ''.__class__.__mro__ }}", "fails (SecurityError"),
    "deep nesting": ("{{" + "(" * 9000 + ")" * 9000 + "}}", "is no Jinja: "),
}
"""What is written before a template that is fine, and what the error must say."""


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", BEYOND)
def test_a_template_beyond_its_limits_is_named(folder, monkeypatch, case):
    monkeypatch.setattr(rendering, "MAX_SECONDS", 1)
    before, message = BEYOND[case]
    (folder / "chat_template.jinja").write_text(before + _FINE)
    start_s = time.process_time()
    with pytest.raises(ValueError, match=r"chat_template\.jinja: the chat template ") as raised:
        Prompter(folder)
    assert message in str(raised.value)
    assert time.process_time() - start_s < 5, "the template has run in this process"


def test_the_file_of_a_template_is_that_which_is_read(folder):
    bad = json.dumps({"chat_template": "{{ nothing.at.all }}"})
    (folder / "chat_template.json").write_text(bad)
    with pytest.raises(ValueError, match=r"chat_template\.json: the chat template fails"):
        Prompter(folder)


def test_what_transformers_offers_is_there(folder):
    """And is what it is there: the turn is that of transformers."""
    template = (
        "{%- set n = namespace(count=0) -%}{%- for i in range(3) -%}{%- set n.count = n.count + 1 "
        "-%}{%- if i == 1 -%}{%- break -%}{%- endif -%}{%- endfor -%}{{ n.count }}{{ eos_token }}"
        "{{ dict(a=1) | tojson }}{{ tools is none }}{% generation %}g{% endgeneration %}"
        "{{ strftime_now('%Y') | length }}" + _FINE
    )
    (folder / "chat_template.jinja").write_text(template)
    from transformers import AutoTokenizer

    turn = [{"role": "user", "content": "a"}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    prompter = Prompter(folder)
    assert prompter.template_head + "a" + prompter.template_tail == expected
