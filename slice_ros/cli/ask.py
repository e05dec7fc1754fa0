# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_client: send one request from the terminal, print its answer and its report."""

import argparse
import json
import math
from pathlib import Path
import sys
import time

from rclpy.utilities import remove_ros_args
from slice_ros.cli.connection import Connection
from slice_ros.client import Answer, SliceClient, SliceError
from slice_ros.errors import ErrorCode


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0 when the request was served, else 1."""
    argv = sys.argv if argv is None else ['slice_client', *argv]
    options = _parse(remove_ros_args(argv)[1:])
    try:
        with Connection(options.node, argv) as connection:
            return connection.run(_run(connection.client, options))
    except SliceError as error:
        print(f'slice_client: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='slice_client', description=__doc__)
    parser.add_argument('text', help='text of the request; - reads it from standard input')
    parser.add_argument('--class', dest='slo_class', default='dialogue', metavar='NAME',
                        help='SLO class of the request (default: dialogue)')
    parser.add_argument('--system', default='', help='instructions to the model')
    parser.add_argument('--max-tokens', type=int, default=128, metavar='N')
    parser.add_argument('--temperature', type=float, default=0.0,
                        help='0 (default) always takes the most probable token')
    parser.add_argument('--seed', type=int, default=-1)
    parser.add_argument('--stop', action='append', default=[], metavar='TEXT',
                        help='end before this text; may be given more than once')
    form = parser.add_argument_group('form of the answer (one of them; free text by default)')
    form = form.add_mutually_exclusive_group()
    form.add_argument('--choice', action='append', metavar='TEXT',
                      help='the answer is this text, or another --choice')
    form.add_argument('--schema', type=Path, metavar='FILE',
                      help='the answer is JSON that is valid under the JSON schema in FILE')
    form.add_argument('--regex', metavar='EXPRESSION',
                      help='the answer matches the whole regular expression')
    parser.add_argument('--reasoning', choices=('on', 'off', 'default'), default='',
                        help='whether a model that can thinks first; the thought is printed to '
                        'standard error (default: as the class has it)')
    parser.add_argument('--reasoning-budget', type=int, default=0, metavar='N',
                        help="tokens of the thought at most (default: the class's)")
    parser.add_argument('--session', default='', metavar='ID', help='conversation to continue')
    parser.add_argument('--reset', action='store_true', help='forget the conversation first')
    for name in ('ttft', 'tpot', 'deadline'):
        parser.add_argument(f'--{name}-ms', type=float, default=0.0, metavar='MS',
                            help="objective in place of the class's")
    parser.add_argument('--json', action='store_true',
                        help='print answer and report as one JSON object at the end')
    parser.add_argument('--node', default='slice', help='name of the node (default: slice)')
    parser.add_argument('--timeout', type=float, default=120.0, metavar='S',
                        help='give up after so many seconds (default: 120)')
    options = parser.parse_args(argv)
    if options.text == '-':
        options.text = sys.stdin.read()
    if options.schema is not None:
        try:
            options.schema = options.schema.read_text()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f'--schema: {error}')
    return options


async def _run(client: SliceClient, options: argparse.Namespace) -> int:
    end = time.monotonic() + options.timeout
    await client.wait_until_ready(options.timeout, _tell)
    prompt = options.text
    if options.system:
        prompt = [('system', options.system), ('user', prompt)]
    stream = client.generate(
        prompt, options.slo_class, max_tokens=options.max_tokens, stop=options.stop,
        ttft_ms=options.ttft_ms, tpot_ms=options.tpot_ms, deadline_ms=options.deadline_ms,
        sampling={'temperature': options.temperature, 'seed': options.seed},
        session_id=options.session, reset_session=options.reset, choice=options.choice,
        schema=options.schema, regex=options.regex, reasoning=options.reasoning,
        reasoning_budget=options.reasoning_budget, timeout=max(end - time.monotonic(), 0.1))
    try:
        async for chunk in stream:
            if not options.json:
                print(chunk.reasoning, end='', flush=True, file=sys.stderr)
                print(chunk.text, end='', flush=True)
    except SliceError as error:
        if error.answer is None:
            raise
    code, sentence = ErrorCode.NONE, ''
    if stream.error is not None:
        code, sentence = stream.error.code, stream.error.message
    if options.json:
        print(json.dumps(_as_json(stream.result, code, sentence), indent=2))
    else:
        print()
        print(_report(stream.result) if code == ErrorCode.NONE
              else f'{_name(code)}: {sentence}', file=sys.stderr)
    return int(code != ErrorCode.NONE)


def _tell(state: str) -> None:
    todo = {'unconfigured': ': configure and activate it', 'inactive': ': activate it',
            'not answering': ': is it running, under this name and namespace?'}
    print(f'waiting for the node, which is {state}{todo.get(state, "")}', file=sys.stderr)


def _name(code: int) -> str:
    return code.name if isinstance(code, ErrorCode) else f'error {code}'


def _as_json(answer: Answer, code: int, sentence: str) -> dict:
    report = answer.report

    def seconds(ms: float) -> float | None:
        return ms / 1e3 if math.isfinite(ms) else None
    return {
        'request_id': answer.request_id, 'text': answer.text, 'reasoning': answer.reasoning,
        'finish_reason': answer.finish_reason, 'error_code': code, 'error': _name(code),
        'error_msg': sentence, 'class': report.slo.name, 'attained': report.attained,
        'prompt_tokens': report.prompt_tokens, 'reused_tokens': report.reused_tokens,
        'output_tokens': report.output_tokens,
        'ttft': seconds(report.ttft_ms), 'tpot': seconds(report.tpot_ms),
        'completion': seconds(report.completion_ms), 'max_gap': seconds(report.max_gap_ms),
        'objectives': {'ttft_ms': report.slo.ttft_ms, 'tpot_ms': report.slo.tpot_ms,
                       'deadline_ms': report.slo.deadline_ms}}


def _report(answer: Answer) -> str:
    report, slo = answer.report, answer.report.slo

    def figure(name: str, value: float, objective: float) -> str:
        mark = '' if not objective else f' (objective {objective:g})'
        return f'{name} {value:.0f} ms{mark}'
    return (f'[{slo.name}: {"attained" if report.attained else "missed"}] '
            f'{report.prompt_tokens} + {report.output_tokens} tokens, {answer.finish_reason}; '
            + ', '.join((figure('TTFT', report.ttft_ms, slo.ttft_ms),
                         figure('TPOT', report.tpot_ms, slo.tpot_ms),
                         figure('completion', report.completion_ms, slo.deadline_ms))))


if __name__ == '__main__':
    sys.exit(main())
