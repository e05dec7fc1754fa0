# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_demo: a robot's minute on one model, live in the terminal.

Starts the node (or uses one that runs) and sends overlapping control, navigation and dialogue
requests. Shows the tokens of each class as they arrive, and at the end a table of objectives and
measured times.
"""

import argparse
from collections.abc import Mapping
from contextlib import contextmanager, ExitStack, nullcontext
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time

from rclpy.utilities import remove_ros_args
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from slice_ros.bench.processes import end_as_interrupted, END_WITHIN, uninterrupted
from slice_ros.cli.connection import Connection
from slice_ros.cli.demo_requests import DemoRequests, DemoScreen
from slice_ros.cli.robots_minute import preambles, SCRIPT
from slice_ros.client import SliceError, Unavailable
from slice_ros.installed import share
import yaml

READY_TIMEOUT = 600.0   # the first start on a slow machine converts the model
ANSWER_TIMEOUT = 120.0  # after the last request was sent
TOPIC_TIMEOUT = 2.0     # for the last texts on the topics, which may arrive after the answer
REDRAW = 0.25           # seconds; drawing takes CPU time that the model could use
FIELDS = ('requests', 'attained', 'ttft_p50', 'ttft_p99', 'tpot_p50', 'tpot_p99',
          'completion_mean')


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0 when every request was answered."""
    parser = argparse.ArgumentParser(prog='slice_demo', description=__doc__)
    parser.add_argument('--params-file', type=Path, default=None,
                        help='parameters of the node (default: the installed config/slice.yaml)')
    parser.add_argument('--model', default='', help='directory or .gguf file to serve '
                        '(default: that of the parameters)')
    parser.add_argument('--chat-template', default='', metavar='FILE',
                        help="Jinja chat template in place of the model's own")
    parser.add_argument('--weights', default='', help='precision of the weights, as in '
                        'engine.weights (default: that of the parameters)')
    parser.add_argument('--vllm-python', default='', metavar='FILE',
                        help='have vLLM compute the steps, which is in this Python; --model is a '
                        'directory then')
    parser.add_argument('--node', default='', metavar='NAME',
                        help='ask the node of this name, which runs already, and start none')
    parser.add_argument('--report', type=Path, default=Path('demo_report.json'),
                        help='where the figures are written (default: demo_report.json)')
    argv = sys.argv if argv is None else ['slice_demo', *argv]
    options = parser.parse_args(remove_ros_args(argv)[1:])
    end_as_interrupted()
    start = nullcontext()
    console = Console()
    if not options.node:
        # A ROS graph of its own: no other node takes part.
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(10, 100)))
        own = {f'engine.{name}': value for name, value in (
            ('model', options.model), ('chat_template', options.chat_template),
            ('weights', options.weights), ('backend', 'vllm' if options.vllm_python else ''),
            ('vllm.python', options.vllm_python)) if value}
        start = _node(options.params_file or share() / 'config' / 'slice.yaml', own, console)
    try:
        with start as node, Connection(options.node or 'slice', argv) as connection:
            _wait_until_ready(connection, node, console)
            requests = DemoRequests(connection)
            _play(requests, console)
            return _finish(requests, options.report, console)
    except SliceError as error:
        console.print(f'slice_demo: {error}', style='red')
        return 1
    except KeyboardInterrupt:
        return 130


@contextmanager
def _node(config: Path, own: Mapping[str, str], console: Console):
    """Run the node as a process of its own, with parameters of its own; end it with SIGINT."""
    with tempfile.NamedTemporaryFile('w+', prefix='slice_node_', suffix='.log',
                                     delete=False) as log, tempfile.NamedTemporaryFile(
                                         'w', suffix='.yaml') as beginnings:
        yaml.safe_dump({'/**': {'ros__parameters': {**preambles(), **own}}}, beginnings)
        beginnings.flush()
        command = [sys.executable, '-m', 'slice_ros.ros.main', '--ros-args', '--params-file',
                   str(config), '--params-file', beginnings.name]
        console.print(f'starting the node with {config}; its log is {log.name}')
        with ExitStack() as ending:
            with uninterrupted():
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                           start_new_session=True)
                process.log = Path(log.name)
                ending.callback(_end, process, console)
            yield process


def _end(process: subprocess.Popen, console: Console) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode:
        console.print(f'the node ended with exit code {process.returncode}:', style='red')
        console.print(_tail(process.log), markup=False, highlight=False)


def _tail(path: Path, lines: int = 15) -> str:
    return '\n'.join(path.read_text(errors='replace').splitlines()[-lines:])


def _wait_until_ready(connection: Connection, node: subprocess.Popen | None,
                      console: Console) -> None:
    begin = time.monotonic()
    asking = connection.start(connection.client.wait_until_ready(READY_TIMEOUT))
    with console.status('waiting for the node') as display:
        while not asking.done():
            if node is not None:
                if node.poll() is not None:
                    raise Unavailable('the node ended before it was ready')
                step = _tail(node.log, 1).rpartition(']: ')[2]
                display.update(f'loading the model ({time.monotonic() - begin:.0f} s): {step}')
            connection.spin()
    status = asking.result()
    console.print(f'ready after {time.monotonic() - begin:.0f} s: {status.engine.model} on '
                  f'{status.engine.device}, {status.engine.weights} weights, '
                  f'{status.engine.kv_bits} bit KV cache, policy '
                  f'{status.scheduler.policy}')


def _play(requests: DemoRequests, console: Console) -> None:
    """Send every request at its time and show the answers until all have ended."""
    begin = time.monotonic()
    todo = list(SCRIPT)
    last = SCRIPT[-1].at + ANSWER_TIMEOUT
    screen = DemoScreen(requests, SCRIPT)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    drawn = 0.0
    with live or nullcontext():
        while (now := time.monotonic() - begin) < last and (todo or requests.waiting):
            while todo and todo[0].at <= now:
                requests.send(todo.pop(0))
            if not live:
                _print_new_lines(screen, now, console)
            elif now - drawn >= REDRAW:
                drawn = now
                live.update(screen.render(now, console), refresh=True)
            requests.connection.spin(0.02)
        requests.wait_for_topics(TOPIC_TIMEOUT)
        if live:
            live.update(screen.render(now, console), refresh=True)
    if not live:
        _print_new_lines(screen, now, console)


def _print_new_lines(screen: DemoScreen, now: float, console: Console) -> None:
    for line in screen.new_lines(now):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _finish(requests: DemoRequests, path: Path, console: Console) -> int:
    from slice_ros.bench.report import class_summary
    summary = class_summary(requests.reports())
    answered = requests.answered()
    report = {
        'requests': len(SCRIPT), 'answered': answered,
        'classes': {name: {field: figures[field] for field in FIELDS}
                    for name, figures in summary.items()}}
    path.write_text(json.dumps(report, indent=2) + '\n')
    console.print(_table(summary))
    console.print(f'{answered} of {len(SCRIPT)} requests answered; figures are in {path}')
    for line in requests.failures():
        console.print(line, style='red', markup=False)
    return 0 if answered == len(SCRIPT) else 1


def _table(summary: Mapping[str, dict]) -> Table:
    table = Table(title='Objectives attained, and measured times (ms)', box=box.SIMPLE,
                  padding=(0, 1, 0, 0), pad_edge=False)
    for column in ('class', 'requests', 'attained', 'TTFT p50', 'p99', 'TPOT p50', 'p99',
                   'completion'):
        table.add_column(column, justify='left' if column == 'class' else 'right')
    for name, figures in summary.items():
        times = [figures[field] for field in FIELDS[2:]]
        table.add_row(name, str(figures['requests']), str(figures['attained']),
                      *('-' if t is None else f'{t * 1e3:.0f}' for t in times))
    return table


if __name__ == '__main__':
    sys.exit(main())
