# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates: as transformers renders them, and unable to harm whatever they contain."""

import os
from pathlib import Path
import signal
import subprocess
import sys
from threading import Thread
import time

import pytest
from slice_ros.engine.config import EngineConfig, template_arguments
from slice_ros.engine.loading import load_engine
from slice_ros.engine.text import chat_template
from slice_ros.engine.text.chat_template import ChatTemplate, read_template
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.errors import ErrorCode, ModelError, RequestError
from slice_ros.installed import share
import tiny

CHAT = [('system', ' Be "brief" & <kind>. '), ('user', 'Hé 🤖\n'), ('assistant', 'ok</think> '),
        ('user', 'And\tnow?')]
PLAIN = '{% for m in messages %}{{ m.content }}{% endfor %}'
ORDINARY = [
    tiny.TEMPLATE, PLAIN,
    '{{ bos_token }}{% for message in messages %}<{{ message.role | upper }}>{{ message.content '
    '| trim }}{{ eos_token }}\n    {%- if not loop.last %}\n  {% endif %}{% endfor %}',
    '{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {"é": 1} | tojson }}',
    '{% set ns = namespace(n=0, seen="") %}{% for m in messages %}{% if m.role == "assistant" %}'
    '{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% if ns.n > 2 %}{% break %}{% endif %}'
    '{{ ns.n }}{{ m.content }}{% endfor %}',
    '{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}',
    '{% macro say(m) %}[{{ m.role }}] {{ m.content }}{% endmacro %}{% for m in messages %}'
    '{{ say(m) }}{% endfor %}{{ dict(a=1).a }}{{ dict.fromkeys(["x"]) }}',
    '{{ strftime_now("%Y") }}{% if tools %}x{% endif %}{{ documents }}{{ tools is none }}',
    '{{ messages[0].content[:5] }}{{ messages[2].content.split("</think>")[0].strip() }}'
    '{{ messages[1:] | length }}{{ messages | map(attribute="role") | join(", ") }}',
    '{% if add_generation_prompt is defined and add_generation_prompt %}GO{% endif %}\n',
    '{%- for m in messages -%}\n  {{- m.content -}}\n{%- endfor -%}\n',
]
# What a template raises or does, and what the sentence contains.
HOSTILE = {
    "{{ 1 + 'a' }}": 'TypeError', '{{ 1 / 0 }}': 'ZeroDivisionError',
    '{{ 10.0 ** 400 }}': 'OverflowError', '{{ missing.name }}': 'refuses',
    '{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}': 'RecursionError',
    '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}': 'time',
    "{{ '%1000000000d' % 1 }}": 'MemoryError', "{{ 'x' * 99999999999 }}": 'MemoryError',
    "{{ ('x' * 999999) | length ** 99999999 }}": 'time', "{{ ''.__class__.__mro__ }}": 'refuses',
    '{% for %}': 'refuses', '{{ raise_exception(1) }}': 'refuses', '{% include "x" %}': 'fails',
    "{{ '\\ud800' }}": 'UnicodeEncodeError', "{{ 'ab'.encode('x') }}": 'LookupError',
    "{{ {}['a']['b'] }}": 'refuses', '{{ range(999999) }}': 'OverflowError',
    '{% set n = namespace(_x=1) %}': 'refuses', '{{ [1] | sum(attribute="x") }}': 'refuses',
    "{{ 'x'.encode('idna')[0:9] * -1 + 1 }}": 'TypeError', '{{ (' * 500: 'fails',
    '{{ ' + '(' * 5000 + ')' * 5000 + ' }}': 'fails',
    "{{ 'a'.join(['b' * 9999999] * 99) }}": 'MemoryError',
}


def encoder_of(template, max_context=200):
    made = tiny.tokenizer()
    made.chat_template = template
    return PromptEncoder(made, max_context)


def refusal(call, *args):
    with pytest.raises(RequestError) as caught:
        call(*args)
    assert '\n' not in caught.value.message and len(caught.value.message) < 600
    return caught.value


@pytest.mark.parametrize('source', ORDINARY)
def test_it_renders_as_transformers_does(source):
    made = tiny.tokenizer()
    made.chat_template, made.bos_token = source, '<|im_start|>'
    expected = made.apply_chat_template([{'role': r, 'content': c} for r, c in CHAT],
                                        add_generation_prompt=True, tokenize=False)
    assert ChatTemplate(source, made.special_tokens_map, 9999).render(CHAT) == expected


@pytest.mark.parametrize('source', HOSTILE)
def test_whatever_a_template_does_is_a_refusal_and_soon_over(source):
    encoder = encoder_of(source)
    began = time.monotonic()
    for _ in range(2):  # also of the second request, in a new process
        error = refusal(encoder.encode_chat, CHAT)
        assert error.code is ErrorCode.INVALID_REQUEST
        assert 'chat template' in error.message
    assert time.monotonic() - began < 100   # the loops would take hours
    assert HOSTILE[source] in error.message or 'time' in error.message


def test_other_requests_are_served_after_one_that_took_too_long():
    encoder = encoder_of(
        "{% for m in messages %}{% if m.content == 'loop' %}{% for i in range(99999) %}"
        '{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ m.content }}'
        '{% endfor %}')
    expected = encoder.encode_chat([('user', 'hello')])
    spent = time.process_time()
    assert 'processor time' in refusal(encoder.encode_chat, [('user', 'loop')]).message
    assert encoder.encode_chat([('user', 'hello')]) == expected
    assert time.process_time() - spent < 0.5  # of this process: the caller's thread only waits


def test_a_process_that_died_is_replaced_and_nobody_notices():
    encoder = encoder_of(PLAIN)
    expected = encoder.encode_chat(CHAT)
    for how in (signal.SIGKILL, signal.SIGTERM):
        os.kill(encoder.template._process._process.pid, how)
        assert encoder.encode_chat(CHAT) == expected


def test_a_process_that_stands_still_is_replaced():
    encoder = encoder_of(PLAIN)
    expected = encoder.encode_chat(CHAT)
    encoder.template._process._socket.settimeout(0.3)
    os.kill(encoder.template._process._process.pid, signal.SIGSTOP)
    assert 'processor time' in refusal(encoder.encode_chat, CHAT).message
    assert encoder.encode_chat(CHAT) == expected


@pytest.mark.parametrize('what', ['\\ud800', '\\u0000', 'a\\n\\rb', '\\x1b[2J'])
def test_the_sentence_of_a_template_can_be_printed_and_sent(what):
    error = refusal(encoder_of("{{ raise_exception('no ' + '" + what + "') }}").encode_chat, CHAT)
    assert error.message.isprintable() and error.message.encode()


# A parent with two templates; the second is rendered until its time is over.
PARENT = """
from slice_ros.engine.text.chat_template import ChatTemplate, read_template
one = ChatTemplate('x', {}, 99)
one.render([('user', 'x')])
two = ChatTemplate('{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}'
                   '{% endfor %}', {}, 99)
print(one._process._process.pid, two._process._process.pid, flush=True)
two.render([('user', 'x')])
"""


def test_no_process_outlives_a_parent_that_is_killed():
    root = Path(chat_template.__file__).parents[3]
    parent = subprocess.Popen([sys.executable, '-c', PARENT], stdout=subprocess.PIPE, text=True,
                              cwd=root)
    processes = parent.stdout.readline().split()
    parent.kill()
    parent.communicate()
    assert len(processes) == 2
    for _ in range(600):
        live = [process for process in processes if is_live(process)]
        if not live:
            break
        time.sleep(0.1)
    assert not live


def is_live(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_the_process_ends_with_its_encoder():
    encoder = encoder_of(PLAIN)
    encoder.encode_chat(CHAT)
    process = encoder.template._process._process
    del encoder
    assert process.returncode is not None


def test_what_a_template_makes_of_a_text_is_bounded():
    encoder = encoder_of('{{ messages[0].content * 99999 }}')
    error = refusal(encoder.encode_chat, [('user', 'hello')])
    assert error.code is ErrorCode.PROMPT_TOO_LONG
    assert '499995 bytes' in error.message


def test_where_no_process_can_be_started_the_caller_hears_why(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(11, 'Resource temporarily unavailable')
    with monkeypatch.context() as patch:
        patch.setattr('subprocess.Popen', fail)
        encoder = encoder_of(PLAIN)
        error = refusal(encoder.encode_chat, CHAT)
    assert error.code is ErrorCode.ENGINE_FAILURE
    assert 'Resource temporarily unavailable' in error.message
    assert encoder.encode_chat(CHAT)


def test_threads_receive_their_own_text():
    encoder, wrong = encoder_of(PLAIN, 99), []

    def ask(name):
        expected = encoder.ids(name)
        wrong.extend(1 for _ in range(100) if encoder.encode_chat([('user', name)]) != expected)
    threads = [Thread(target=ask, args=(f'robot {n} ' * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


GEMMA2 = ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported')"
          " }}{% endif %}{% for m in messages %}{{ m['role'] + ':' + m['content'] + '|' }}"
          '{% endfor %}')


def test_a_system_message_that_is_refused_goes_in_front_of_the_first_question():
    render = ChatTemplate(GEMMA2, {}, 999).render
    system, user = ('system', 'Be brief.'), ('user', 'Hi')
    assert render([system, user, ('assistant', 'Yes'), user]) == (
        'user:Be brief.\n\nHi|assistant:Yes|user:Hi|')
    assert render([user]) == 'user:Hi|'
    for messages in ([system], [system, ('assistant', 'Yes')]):
        assert 'System role not supported' in refusal(render, messages).message


def test_a_refusal_for_another_reason_stays_the_one_of_the_messages_as_they_are():
    source = "{{ raise_exception('first is ' + messages[0]['role']) }}"
    render = ChatTemplate(source, {}, 999).render
    assert 'first is system' in refusal(render, [('system', 'a'), ('user', 'b')]).message


def test_arguments_reach_the_template_and_special_tokens_stay_what_they_are():
    made = tiny.tokenizer()
    made.chat_template = "{{ 'think' if enable_thinking else 'act' }} {{ eos_token }}"
    for arguments, text in (({}, 'act'), ({'enable_thinking': True}, 'think'),
                            ({'enable_thinking': False, 'eos_token': 'x'}, 'act')):
        encoder = PromptEncoder(made, 200, arguments)
        assert encoder.encode_chat(CHAT) == encoder.encode(f'{text} <|im_end|>')


@pytest.mark.parametrize('text, wrong', [
    ('[]', 'JSON object'), ('1', 'JSON object'), ('{', 'JSON object'), ('x' * 5000, 'JSON object'),
    ('[' * 4000, 'JSON object'), ('{"messages": []}', "'messages'"), ('{"a b": 1}', "'a b'"),
    ('{"": 1}', "''"), ('{"tools": 1}', "'tools'")])
def test_arguments_that_are_none_are_named(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        EngineConfig(template_arguments=text)
    assert template_arguments('{"enable_thinking": false}') == {'enable_thinking': False}
    assert template_arguments('') == {}


def test_a_file_takes_the_place_of_the_models_own_template(tmp_path):
    """Whether the model has one or not; what is no template is refused with a sentence."""
    file = tmp_path / 'turns.jinja'
    file.write_text('{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}')
    tiny.save(tmp_path / 'model', tiny.llama())
    engine = load_engine(EngineConfig(model=str(tmp_path / 'model'), weights='fp32',
                                      chat_template=str(file)))
    assert engine.encode_chat([('user', 'x')]) == engine.encode('[user] x')


@pytest.mark.parametrize('content, wrong', [
    (None, 'names no file'), (b'\xff\xfe', 'as text'), (b'x' * (1 << 18 | 1), 'more than 262144')])
def test_what_is_no_template_is_named(tmp_path, content, wrong):
    file = tmp_path / 'turns.jinja'
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=wrong):
        read_template(str(file))
    with pytest.raises(ModelError, match='names no file'):
        read_template(str(tmp_path))


def test_gemmas_turns_have_the_system_message_in_the_users():
    source = read_template(str(share() / 'config' / 'chat_templates' / 'gemma.jinja'))
    template = ChatTemplate(source, {'bos_token': '<bos>'}, 1000)
    assert template.render([('system', 'Be brief.'), ('user', ' Stop? '), ('assistant', 'Go'),
                            ('user', 'Why?')]) == (
        '<bos><start_of_turn>user\nBe brief.\n\nStop?<end_of_turn>\n'
        '<start_of_turn>model\nGo<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n'
        '<start_of_turn>model\n')
