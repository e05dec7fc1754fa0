"""slice_client: ask one thing from the terminal, watch the answer come, see its report."""

import argparse
import json
import math
import sys

from rclpy.utilities import remove_ros_args
from slice_ros import msg
from slice_ros.action import Generate
from slice_ros.cli.connection import Connection, NoAnswer, wait
from slice_ros.errors import ErrorCode


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0 when the request was served, else 1."""
    argv = sys.argv if argv is None else ['slice_client', *argv]
    options = _parse(remove_ros_args(argv)[1:])
    try:
        with Connection(options.node, argv) as connection:
            return _ask(connection, options)
    except NoAnswer as error:
        print(f'slice_client: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='slice_client', description=__doc__)
    parser.add_argument('text', help='what to say; - reads it from standard input')
    parser.add_argument('--class', dest='slo_class', default='dialogue', metavar='NAME',
                        help='SLO class of the request (default: dialogue)')
    parser.add_argument('--system', default='', help='instructions to the model')
    parser.add_argument('--max-tokens', type=int, default=128, metavar='N')
    parser.add_argument('--temperature', type=float, default=0.0,
                        help='0 (default) always takes the most probable token')
    parser.add_argument('--seed', type=int, default=-1)
    parser.add_argument('--stop', action='append', default=[], metavar='TEXT',
                        help='end before this text; may be given more than once')
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
    if not 0 <= options.max_tokens < 1 << 32:
        parser.error('--max-tokens must not be negative')
    return options


def _ask(connection: Connection, options: argparse.Namespace) -> int:
    connection.wait_until_ready(options.timeout)
    goal = Generate.Goal(
        slo_class=options.slo_class, max_tokens=options.max_tokens, stop=options.stop,
        ttft_ms=options.ttft_ms, tpot_ms=options.tpot_ms, deadline_ms=options.deadline_ms,
        sampling=msg.SamplingParams(temperature=options.temperature, seed=options.seed))
    if options.system:
        goal.messages = [msg.ChatMessage(role='system', content=options.system),
                         msg.ChatMessage(role='user', content=options.text)]
    else:
        goal.prompt = options.text

    def show(feedback: Generate.Feedback) -> None:
        print(feedback.text, end='', flush=True)
    handle = wait(connection.send(goal, None if options.json else show), options.timeout)
    if not handle.accepted:
        raise NoAnswer('the node did not accept the goal')
    try:
        result = wait(handle.get_result_async(), options.timeout).result
    except (KeyboardInterrupt, NoAnswer):
        wait(handle.cancel_goal_async(), 5.0)  # nobody waits for it any more
        raise
    if options.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        print()
        _print_report(result)
    return 0 if result.error_code == ErrorCode.NONE else 1


def _as_json(result: Generate.Result) -> dict:
    report = result.report

    def seconds(ms: float) -> float | None:
        return ms / 1e3 if math.isfinite(ms) else None
    return {
        'request_id': result.request_id, 'text': result.text,
        'finish_reason': result.finish_reason, 'error_code': result.error_code,
        'error': ErrorCode(result.error_code).name, 'error_msg': result.error_msg,
        'class': report.slo.name, 'attained': report.attained,
        'prompt_tokens': report.prompt_tokens, 'output_tokens': report.output_tokens,
        'ttft': seconds(report.ttft_ms), 'tpot': seconds(report.tpot_ms),
        'completion': seconds(report.completion_ms), 'max_gap': seconds(report.max_gap_ms),
        'objectives': {'ttft_ms': report.slo.ttft_ms, 'tpot_ms': report.slo.tpot_ms,
                       'deadline_ms': report.slo.deadline_ms}}


def _print_report(result: Generate.Result) -> None:
    if result.error_code != ErrorCode.NONE:
        print(f'{ErrorCode(result.error_code).name}: {result.error_msg}', file=sys.stderr)
        return
    report, slo = result.report, result.report.slo

    def figure(name: str, value: float, objective: float) -> str:
        mark = '' if not objective else f' (objective {objective:g})'
        return f'{name} {value:.0f} ms{mark}'
    print(f'[{slo.name}: {"attained" if report.attained else "missed"}] '
          f'{report.prompt_tokens} + {report.output_tokens} tokens, {result.finish_reason}; '
          + ', '.join((figure('TTFT', report.ttft_ms, slo.ttft_ms),
                       figure('TPOT', report.tpot_ms, slo.tpot_ms),
                       figure('completion', report.completion_ms, slo.deadline_ms))),
          file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
