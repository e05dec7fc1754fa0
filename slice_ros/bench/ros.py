"""``slice_bench ros``: what callers get over real topics, with the node in a process of its own.

This process is the caller: it starts the node as a user would, sends goals, and holds what comes
on the token topics against what the node says of itself.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
import json
import math
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

from rich.console import Console
from slice_ros.serving.stats import percentile

READY_WITHIN = 300.0     # seconds; the first start on a machine converts and profiles the model
PROMPT = 'Tell me a long story about a robot that explores a warehouse.'
CONTROL = 'An obstacle is two metres ahead. Answer with one word: stop or go?'
STREAM_TOKENS = 400      # tokens of one answer; short enough for the default context
DIALOGUES = 12           # goals that stream while control is asked
SETTLE = 2.5             # seconds between a change and its first diagnostics


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--streams', type=int, default=8, help='answers that stream at once')
    parser.add_argument('--tokens', type=int, default=6400,
                        help='tokens to deliver in all (default: %(default)s)')
    parser.add_argument('--trials', type=int, default=20,
                        help=f'control goals sent beside {DIALOGUES} dialogues')
    parser.add_argument('--policy', default='', help="scheduling policy; the node's default if "
                        'not given')
    parser.add_argument('--model', default='', help='directory or .gguf file; the embedded model '
                        'if not given')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure, print, write the JSON; returns the exit status.

    Raises ``ValueError`` for options that make no sense, and when the node does not serve.
    """
    for name in ('streams', 'tokens', 'trials'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1')
    # Nobody else's nodes are heard, nobody else hears ours.
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randrange(10, 100)))
    console = Console()
    options = [f'engine.model:={args.model}'] if args.model else []
    options += [f'scheduler.policy:={args.policy}'] if args.policy else []
    result = {}
    with _caller() as caller:
        with _node(caller, options, console):
            console.print(f'delivery: {args.tokens} tokens in {args.streams} streams')
            result['delivery'] = _delivery(caller, args.streams, args.tokens)
            console.print(result['delivery'])
            console.print(f'control beside {DIALOGUES} dialogues: {args.trials} trials')
            result['control_under_dialogue'] = _control_under_dialogue(caller, args.trials)
            console.print(result['control_under_dialogue'])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 0


class _Caller:
    """Everything that is heard, with the time at which it was."""

    def __init__(self, ros_node, clients) -> None:
        self.node, self.clients = ros_node, clients
        self.chunks: dict[str, list[tuple[float, object]]] = {}   # request id -> (time, chunk)
        self.health: dict[str, dict[str, str]] = {}               # status -> its values

    def on_chunk(self, chunk) -> None:
        self.chunks.setdefault(chunk.request_id, []).append((time.time(), chunk))

    def on_health(self, array) -> None:
        self.health = {s.name.rpartition(': ')[2]: {v.key: v.value for v in s.values}
                       for s in array.status}

    def get(self, future, timeout: float = 120.0):
        """Return the result of a future. Raises ``ValueError`` when it does not come."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise ValueError(f'the node gave no answer within {timeout:g} s')
        return future.result()

    def send(self, slo_class: str, prompt: str, max_tokens: int):
        """Send a goal and return its handle."""
        from slice_ros.action import Generate
        handle = self.get(self.clients['generate'].send_goal_async(Generate.Goal(
            slo_class=slo_class, prompt=prompt, max_tokens=max_tokens)))
        if not handle.accepted:
            raise ValueError('the node refused a goal')
        return handle


@contextmanager
def _caller() -> Iterator[_Caller]:
    from diagnostic_msgs.msg import DiagnosticArray
    import rclpy
    from rclpy.action import ActionClient
    from rclpy.executors import SingleThreadedExecutor
    from slice_ros import msg, srv
    from slice_ros.action import Generate
    from slice_ros.ros.requests import TOKENS
    rclpy.init()
    node = rclpy.create_node('slice_bench')
    caller = _Caller(node, {
        'status': node.create_client(srv.GetStatus, 'slice/get_status'),
        'generate': ActionClient(node, Generate, 'slice/generate',
                                 feedback_sub_qos_profile=TOKENS),
        'prompts': node.create_publisher(msg.Prompt, 'slice/dialogue/prompt', 100)})
    for name in ('control', 'dialogue'):
        node.create_subscription(msg.TokenChunk, f'slice/{name}/tokens', caller.on_chunk, TOKENS)
    node.create_subscription(DiagnosticArray, '/diagnostics', caller.on_health, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except rclpy.executors.ShutdownException:
            pass
    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        yield caller
    finally:
        executor.shutdown()
        spinner.join(5.0)
        node.destroy_node()
        rclpy.shutdown()


@contextmanager
def _node(caller: _Caller, options: list[str], console: Console) -> Iterator[subprocess.Popen]:
    """Run the node with parameters NAME:=VALUE until the end of the block."""
    options = ['status.window_s:=20.0', 'limits.max_tokens:=1024', *options]
    command = [sys.executable, '-m', 'slice_ros.ros.node', '--ros-args']
    for option in options:
        command += ['-p', option]
    with tempfile.NamedTemporaryFile('w+', prefix='slice_node_', suffix='.log') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            with console.status('starting the node'):
                _wait_until_ready(caller, process, Path(log.name))
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_until_ready(caller: _Caller, process: subprocess.Popen, log: Path) -> None:
    client = caller.clients['status']
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ValueError('the node ended: ' + '\n'.join(log.read_text().splitlines()[-5:]))
        if client.wait_for_service(0.2):
            if caller.get(client.call_async(client.srv_type.Request())).state == 'ready':
                if caller.clients['generate'].wait_for_server(10.0):
                    return
        time.sleep(0.2)
    raise ValueError(f'the node was not ready within {READY_WITHIN:g} s')


def _delivery(caller: _Caller, streams: int, tokens: int) -> dict[str, float]:
    """Stream `tokens` in all, `streams` answers at a time; return the field of the JSON.

    Requests come by topic: the feedback of goals would come to this process as well, and what
    is measured is how soon a subscriber has a token.
    """
    from slice_ros import msg
    caller.chunks.clear()
    length = min(STREAM_TOKENS, math.ceil(tokens / streams))
    ids = [f'stream {number}' for number in range(math.ceil(tokens / length))]
    todo, live, shares = list(ids), set(), []
    prompts = caller.clients['prompts']
    quiet = time.monotonic()
    while todo or live:
        while todo and len(live) < streams:
            live.add(todo[0])
            prompts.publish(msg.Prompt(request_id=todo[0], prompt=f'{PROMPT} This is {todo[0]}.',
                                       max_tokens=length))
            todo.pop(0)
        before = sum(map(len, caller.chunks.values()))
        time.sleep(0.5)
        if len(live) == streams and 'scheduler' in caller.health:
            shares.append(float(caller.health['scheduler']['delivery']))
        live = {i for i in live
                if not (caller.chunks.get(i) and caller.chunks[i][-1][1].finished)}
        if sum(map(len, caller.chunks.values())) > before:
            quiet = time.monotonic()
        if time.monotonic() - quiet > 60:
            break  # last chunks were lost: that is counted below
    received = [caller.chunks.get(i, []) for i in ids]
    delays = [at - c.stamp.sec - c.stamp.nanosec / 1e9 for one in received for at, c in one]
    numbers = [[c.sequence for _, c in one] for one in received]
    expected = [max(n, default=length - 1) + 1 for n in numbers]
    return {
        'loop_share': percentile(shares, 0.5),
        'latency_p50_ms': percentile(delays, 0.5) * 1e3,
        'latency_p99_ms': percentile(delays, 0.99) * 1e3,
        'tokens': sum(expected),
        'lost': sum(n - len(set(heard)) for n, heard in zip(expected, numbers)),
        'reordered': sum(b <= a for one in numbers for a, b in zip(one, one[1:]))}


def _control_under_dialogue(caller: _Caller, trials: int) -> dict[str, int]:
    """Ask control while dialogues stream all the time; return the field of the JSON."""
    dialogues: list = []
    over = threading.Event()

    def keep_streaming() -> None:
        while not over.is_set():
            dialogues[:] = [(h, f) for h, f in dialogues if not f.done()]
            while len(dialogues) < DIALOGUES:
                handle = caller.send('dialogue', PROMPT, STREAM_TOKENS)
                dialogues.append((handle, handle.get_result_async()))
            over.wait(0.1)
    keeper = threading.Thread(target=keep_streaming, daemon=True)
    keeper.start()
    attained = 0
    try:
        for _ in range(trials):
            time.sleep(SETTLE * random.uniform(0.2, 0.6))
            report = _measured(caller, CONTROL)
            attained += report.attained
    finally:
        over.set()
        keeper.join(30.0)
        cancels = [handle.cancel_goal_async() for handle, _ in dialogues]
        for cancel in cancels:
            caller.get(cancel)
    return {'attained': attained, 'trials': trials}


def _measured(caller: _Caller, prompt: str):
    handle = caller.send('control', prompt, 16)
    return caller.get(handle.get_result_async()).result.report
