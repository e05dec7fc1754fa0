# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The declarations of all parameters: type, default, range, unit and sentence."""

from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from slice_ros.engine.chat_options import MAX_THOUGHT_TOKENS, REASONING, THOUGHT_TOKENS
from slice_ros.engine.config import (
    BACKENDS, ISAS, KV, MAX_PREFIX_CACHE, TOOL_SYNTAXES, WEIGHTS)
from slice_ros.scheduling.registry import POLICIES, policy_names
from slice_ros.serving import DEFAULT_POLICY
from slice_ros.serving.rate_control import MODES
from slice_ros.slo import DEFAULT_CLASSES, SloClass

KINDS = {bool: 'bool', int: 'integer', float: 'double', str: 'string', list: 'string[]'}


@dataclass(frozen=True, slots=True)
class Spec:
    """One parameter; the type is that of its default."""

    name: str
    default: object
    sentence: str                # meaning, with the unit
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = False          # read once, when the node starts

    @property
    def kind(self) -> str:
        """The type as ROS calls it."""
        return KINDS[type(self.default)]


SPECS = (
    Spec('autostart', True, 'Configure and activate by itself; false leaves both to a lifecycle '
         'manager.', fixed=True),
    Spec('engine.model', '', 'Model: a Hugging Face directory or a .gguf file; empty = the '
         'embedded SmolLM2-135M-Instruct.'),
    Spec('engine.device', 'auto', 'Where the model runs.', choices=('auto', 'cpu', 'cuda')),
    Spec('engine.weights', 'auto', 'Precision of the weights in memory; auto = a GGUF '
         "file's own, else what suits the device.", choices=WEIGHTS),
    Spec('engine.kv', 'auto', 'Bits of keys and values in the KV cache; auto = 16, or 32 with '
         'fp32 weights; 8, of the native kernels alone, takes about half the memory.', choices=KV),
    Spec('engine.max_context', 2048, 'Tokens of one request, prompt and answer together.',
         8, 1 << 22),
    Spec('engine.slots', 32, 'Requests with a KV cache at the same time.', 1, 4096),
    Spec('engine.max_batch', 16, 'Requests in one decode step.', 1, 4096),
    Spec('engine.memory_fraction', 0.5, 'Share of the free memory at the start that '
         'the KV caches may use.', 0.01, 0.95),
    Spec('engine.threads', 0, 'CPU threads of a step; 0 = one for each core.', 0, 1024),
    Spec('engine.isa', 'auto', 'Instruction set of the native kernels; auto = the best of this '
         'processor.', choices=ISAS),
    Spec('engine.chat_template', '', "File of a Jinja chat template in place of the model's own; "
         'empty = its own.'),
    Spec('engine.template_arguments', '', 'JSON object of names that the chat template of the '
         'model reads, such as {"enable_thinking": false} for Qwen3; empty = none.'),
    Spec('engine.tool_syntax', 'auto', 'How the model writes calls of tools; auto = as its chat '
         'template shows.', choices=TOOL_SYNTAXES),
    Spec('engine.adapters', [''], 'LoRA adapters that requests may choose: NAME=DIRECTORY each, '
         'as PEFT saves them; empty = none.'),
    Spec('engine.prefix_cache', '', 'Folder that keeps computed preambles for the next start; '
         "empty = prefixes/ in the user's cache folder, ~/.cache/slice_ros."),
    Spec('engine.prefix_cache_bytes', 1 << 29, 'Bytes that they may take, the least recently used '
         'go first; 0 = none is kept on disk.', 0, MAX_PREFIX_CACHE),
    Spec('engine.draft_model', '', 'Smaller model of the same vocabulary that guesses what the '
         'model answers, which saves steps and changes no answer: a directory or a .gguf file; '
         'for the native kernels alone; empty = none.'),
    Spec('engine.draft_weights', 'auto', 'Precision of its weights in memory, as engine.weights.',
         choices=WEIGHTS),
    Spec('engine.backend', 'native', 'Who computes the steps: native = this package; vllm = vLLM, '
         'in a process of its own, see docs/scaling.md.', choices=BACKENDS),
    Spec('engine.vllm.python', '', 'For vllm: the Python of an environment that has vLLM; empty = '
         'that of the node.', fixed=True),
    Spec('engine.vllm.tensor_parallel_size', 1, 'For vllm: GPUs that it divides the model among.',
         1, 64),
    Spec('engine.vllm.ray_address', '', 'For vllm: HOST:PORT of the Ray cluster that has these '
         'GPUs; empty = this machine has them.', fixed=True),
    Spec('scheduler.policy', DEFAULT_POLICY, 'Scheduling policy.', choices=policy_names()),
    Spec('scheduler.admission', 'accept', 'What happens to a request whose objectives cannot be '
         'met now: accept = served as best effort, reject = refused with INFEASIBLE_SLO, '
         'degrade:CLASS = served in that class.'),
    Spec('scheduler.capacity_ratio', 0.0, 'For slice_static: share of a cycle the selection may '
         'fill; 0 = its own.', 0.0, 1.0),
    Spec('scheduler.cycle_s', 0.0, 'For slice_static: span over which rates are planned, '
         'seconds; 0 = its own.', 0.0, 60.0),
    Spec('scheduler.prefill_chunk', 0, 'Prompt tokens in one step: with fewer an urgent request '
         'starts sooner, with more a prompt is computed faster; 0 = 64, on a GPU as many as take '
         '20 ms.', 0, 1 << 16),
    Spec('rate_control.mode', 'work_conserving', 'How tokens are released: paced = each request '
         'at the rate of its class, with the engine idle in between; work_conserving = as fast '
         'as the engine computes them.', choices=MODES),
    Spec('rate_control.period_s', 0.005, 'For paced: shortest period of the timer that releases '
         'tokens, on the clock of the node, seconds.', 0.001, 0.1),
    Spec('rate_control.stall_s', 0.5, 'Generation stops when the executor or the clock of the '
         'node has stood still this long, seconds; at least 4 times rate_control.period_s.',
         0.05, 60.0),
    Spec('limits.max_queued', 64, 'Requests that may wait for their first step; more get '
         'QUEUE_FULL.', 1, 1 << 16),
    Spec('limits.class_share', 0.5, 'Share of the full queue that one class has at most while '
         'others want in.', 0.0, 1.0),
    Spec('limits.max_tokens', 1024, 'Largest max_tokens of a request.', 1, 1 << 20),
    Spec('limits.max_prompt_tokens', 0, 'Tokens of the longest prompt; 0 = what the context '
         'holds.', 0, 1 << 22),
    Spec('limits.max_text_bytes', 65536, 'Bytes of all texts of a request together.',
         1, 1 << 30),
    Spec('limits.max_messages', 256, 'Messages in a conversation.', 1, 1 << 16),
    Spec('limits.on_miss', 'continue', 'For slice: what happens to a request that has missed an '
         'objective: continue = served as best effort, drop = ends with DEADLINE_MISSED.',
         choices=('continue', 'drop')),
    Spec('limits.unattended_s', 120.0, 'Time after which a request ends that nobody is there to '
         'receive: no subscriber of its class, and no client of the action or service that it '
         'came in by; seconds, 0 = never.', 0.0, 1e6),
    Spec('limits.result_timeout_s', 30, 'How long the result of an action goal is kept for its '
         'client, seconds. Every goal that is kept is listed in each status of the action, which '
         'all its clients read three times a goal.', 1, 86400, fixed=True),
    Spec('sessions.max_count', 64, 'Conversations that are kept; the least recently used is '
         'forgotten first.',
         1, 4096),
    Spec('sessions.ttl_s', 1800.0, 'Time after its last turn until a conversation is forgotten, '
         'seconds.', 1.0, 1e7),
    Spec('sessions.max_tokens', 0, 'Tokens of one conversation with max_tokens of its next '
         'answer; 0 = what the context holds. When it is full, its older half is forgotten.',
         0, 1 << 22),
    Spec('speech.language', 'en', 'Language of the answers, which decides where a sentence on '
         "~/<class>/sentences ends: an ISO 639 code ('en', 'de', 'zh', ...)."),
    Spec('status.period_s', 1.0, 'Time between two messages on ~/scheduler_state, seconds.',
         0.05, 3600.0),
    Spec('status.window_s', 60.0, 'Time span that the figures of the status cover, seconds.',
         1.0, 86400.0),
    Spec('threads.executor_cpus', '', 'CPUs of the executor, which answers, and of the threads '
         'that deliver and read, such as 0-3,6; empty = all.', fixed=True),
    Spec('threads.executor_nice', 0, 'Their nice value; 0 = that of the process.', -20, 19,
         fixed=True),
    Spec('threads.executor_priority', 0, 'Their real-time priority (SCHED_FIFO); 0 = none.', 0, 99,
         fixed=True),
    Spec('threads.loop_cpus', '', 'CPUs of the loop, which plans and computes, and of the threads '
         'that compute with it; empty = all. Give engine.threads their number.', fixed=True),
    Spec('threads.loop_nice', 0, 'Their nice value; 0 = that of the process.', -20, 19,
         fixed=True),
    Spec('threads.loop_priority', 0, 'Their real-time priority (SCHED_FIFO); 0 = none. Without a '
         'CPU of its own the executor needs a higher one.', 0, 99, fixed=True),
    Spec('shutdown.drain_s', 0.0, 'Time for live requests to end when the node is asked to '
         'stop, seconds.', 0.0, 600.0),
)
MAX_CLASSES = 64   # each has topics of its own
AT_ONCE = ('control',)   # classes whose answers come without a thought
CLASSES = Spec('slo.classes', [slo.name for slo in DEFAULT_CLASSES], 'Names of the SLO classes.')


def class_specs(name: str) -> tuple[Spec, ...]:
    """Return the parameters of one SLO class."""
    known = {slo.name: slo for slo in DEFAULT_CLASSES}
    slo = known[name] if name in known else SloClass('none')
    return (
        Spec(f'slo.{name}.ttft_ms', float(slo.ttft_ms), 'Objective: request received to first '
             'token, milliseconds; 0 = none.', 0.0, 1e9),
        Spec(f'slo.{name}.tpot_ms', float(slo.tpot_ms), 'Objective: mean time per token after '
             'the first, milliseconds; 0 = none.', 0.0, 1e9),
        Spec(f'slo.{name}.deadline_ms', float(slo.deadline_ms), 'Objective: request received to '
             'last token, milliseconds; 0 = none.', 0.0, 1e9),
        Spec(f'slo.{name}.utility', float(slo.utility), 'Utility of one attained request relative '
             'to other classes.', 1e-9, 1e9),
        Spec(f'slo.{name}.reasoning', 'off' if name in AT_ONCE else 'default', 'Whether a model '
             'that can thinks before it answers; default = as it does by itself.',
             choices=REASONING),
        Spec(f'slo.{name}.reasoning_budget', THOUGHT_TOKENS, 'Tokens of such a thought at most, '
             'beside max_tokens; then the answer begins.', 1, MAX_THOUGHT_TOKENS),
        Spec(f'slo.{name}.template_arguments', '', 'JSON object of names for the chat template, '
             'where that reads them, over those of the engine; empty = none.'),
        Spec(f'slo.{name}.preamble', '', 'What its requests begin with, computed whenever the '
             'node is activated and kept in the KV cache: the system message, or a JSON array of '
             'messages with role and content.'))


def descriptor(spec: Spec) -> ParameterDescriptor:
    # `settings_from` checks the type and names the parameter; rclpy would name two numbers.
    descriptor = ParameterDescriptor(description=spec.sentence, read_only=spec.fixed,
                                     dynamic_typing=True)
    if spec.choices:
        descriptor.additional_constraints = f'one of {", ".join(spec.choices)}'
    if isinstance(spec.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))]
    elif isinstance(spec.default, int) and not isinstance(spec.default, bool):
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)]
    return descriptor


def markdown() -> str:
    """Return the table of all parameters for the README."""
    lines = ['| parameter | type | default | range | meaning |',
             '| --- | --- | --- | --- | --- |']
    for spec in (CLASSES, *class_specs('control'), *SPECS):
        span = ', '.join(spec.choices)
        if spec.low is not None:
            span = f'{spec.low:g} to {spec.high:g}'
        if spec.name == 'scheduler.policy':   # without those of other packages
            span = ', '.join(sorted(POLICIES))
        if spec.name == 'scheduler.admission':
            span = 'accept, reject, degrade:CLASS'
        default = ', '.join(spec.default) if spec.kind == 'string[]' else str(spec.default).lower()
        when = ' *(fixed at start)*' if spec.fixed else ''
        if spec.name.startswith('engine.') and not spec.fixed:
            when = ' *(while unconfigured)*'
        lines.append(f'| `{spec.name}` | {spec.kind} | {default or "empty"} | {span} | '
                     f'{spec.sentence}{when} |')
    return '\n'.join(lines) + '\n'
