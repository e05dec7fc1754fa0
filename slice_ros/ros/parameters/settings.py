# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""One consistent set of parameter values, checked as a whole, as typed settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
import re

from slice_ros.engine import ChatOptions, EngineConfig
from slice_ros.ros.isolation.placement import cpus_from, Placement
from slice_ros.ros.parameters.parameter_specs import class_specs, MAX_CLASSES, Spec, SPECS
from slice_ros.scheduling.admission import check_rule
from slice_ros.scheduling.policy_options import option_types
from slice_ros.scheduling.registry import make_policy, policy_class
from slice_ros.serving import RateControl, ServerConfig, SessionLimits
from slice_ros.serving.sessions import Messages
from slice_ros.serving.warm.preambles import parse_preamble
from slice_ros.slo import SloClass

# Option of a policy, the parameter that sets it, and the value that leaves it at its default.
POLICY_OPTIONS = (('capacity_ratio', 'scheduler.capacity_ratio', 0.0),
                  ('cycle', 'scheduler.cycle_s', 0.0), ('on_miss', 'limits.on_miss', 'continue'))

# Texts that may be numbers, which a file gives without quotes.
_NUMBERED = {spec.name for spec in SPECS if any(map(str.isdigit, spec.choices))}


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent set of parameters."""

    engine: EngineConfig
    server: ServerConfig
    rate_control: RateControl
    classes: Mapping[str, SloClass]
    preambles: Mapping[str, Messages]   # by class name
    chat: Mapping[str, ChatOptions]     # by class name
    max_text_bytes: int
    max_messages: int
    unattended_s: float
    result_timeout_s: int
    status_period_s: float
    drain_s: float
    language: str
    autostart: bool
    executor: Placement   # of its thread
    loop: Placement       # of its thread, and of those that compute with it


class ParameterError(Exception):
    """A set of parameters that cannot be used; the sentence names the wrong one."""


def settings_from(names: Iterable[str], values: Mapping[str, object]) -> Settings:
    """Check a whole set of values and make the snapshot. Raises `ParameterError`."""
    names = list(names)
    check_names(names)
    for spec in SPECS + tuple(spec for name in names for spec in class_specs(name)):
        check_value(spec, values[spec.name])
    try:
        classes = {
            name: SloClass(name, *(values[f'slo.{name}.{f.name}'] for f in fields(SloClass)[1:]))
            for name in names}
    except ValueError as error:
        raise ParameterError(f'slo.classes: {error}') from error
    try:
        check_rule(values['scheduler.admission'], names)
    except ValueError as error:
        raise ParameterError(f'scheduler.{error}') from error
    language = values['speech.language']
    if not re.fullmatch('[a-z]{2,3}', language):
        raise ParameterError(f"speech.language must be an ISO 639 code ('en', 'de', ...), "
                             f'not {language!r:.80}')
    options = _policy_options(values)
    rate = RateControl(**{name: values[f'rate_control.{name}']
                          for name in ('mode', 'period_s', 'stall_s')})
    if rate.stall_s < 4 * rate.period_s:
        raise ParameterError('rate_control.stall_s must be at least 4 times '
                             f'rate_control.period_s ({rate.period_s:g}), not {rate.stall_s:g}')
    try:
        engine = EngineConfig(**{name: values[f'engine.{name}'] for name in (
            'model', 'device', 'weights', 'kv', 'max_context', 'slots', 'max_batch',
            'memory_fraction', 'threads', 'isa', 'chat_template', 'template_arguments',
            'tool_syntax', 'backend', 'draft_model', 'draft_weights')},
            adapters=tuple(filter(None, values['engine.adapters'])),
            vllm_python=values['engine.vllm.python'],
            tensor_parallel_size=values['engine.vllm.tensor_parallel_size'],
            ray_address=values['engine.vllm.ray_address'],
            prefix_cache=values['engine.prefix_cache'],
            prefix_cache_bytes=values['engine.prefix_cache_bytes'])
    except ValueError as error:
        raise ParameterError(f'engine.{error}') from error
    server = ServerConfig(
        policy=values['scheduler.policy'], policy_options=options,
        admission=values['scheduler.admission'],
        classes=tuple(classes.values()), max_batch=engine.max_batch,
        prefill_chunk=values['scheduler.prefill_chunk'], window=values['status.window_s'],
        sessions=SessionLimits(values['sessions.max_count'], values['sessions.ttl_s'],
                               values['sessions.max_tokens'], values['limits.max_prompt_tokens']),
        **{name: values[f'limits.{name}']
           for name in ('max_queued', 'class_share', 'max_prompt_tokens', 'max_tokens')})
    return Settings(
        engine=engine, server=server, rate_control=rate, classes=classes,
        preambles={name: _preamble(name, values) for name in names},
        chat={name: _chat_options(name, values) for name in names},
        max_text_bytes=values['limits.max_text_bytes'],
        max_messages=values['limits.max_messages'],
        unattended_s=values['limits.unattended_s'],
        result_timeout_s=values['limits.result_timeout_s'],
        status_period_s=values['status.period_s'], drain_s=values['shutdown.drain_s'],
        language=values['speech.language'],
        autostart=values['autostart'],
        executor=_placement('executor', values), loop=_placement('loop', values))


def _placement(of: str, values: Mapping[str, object]) -> Placement:
    try:
        cpus = cpus_from(values[f'threads.{of}_cpus'])
    except ValueError as error:
        raise ParameterError(f'threads.{of}_cpus {error}') from error
    return Placement(of, cpus, values[f'threads.{of}_nice'], values[f'threads.{of}_priority'])


def _preamble(name: str, values: Mapping[str, object]) -> Messages:
    text, most = values[f'slo.{name}.preamble'], values['limits.max_text_bytes']
    if len(text) > most:
        raise ParameterError(f'slo.{name}.preamble has {len(text)} characters: shorten it to '
                             f'{most}')
    try:
        return parse_preamble(text)
    except ValueError as error:
        raise ParameterError(f'slo.{name}.preamble {error}') from error


def _chat_options(name: str, values: Mapping[str, object]) -> ChatOptions:
    try:
        return ChatOptions(values[f'slo.{name}.reasoning'], values[f'slo.{name}.reasoning_budget'],
                           defaults=values[f'slo.{name}.template_arguments'])
    except ValueError as error:
        raise ParameterError(f'slo.{name}.{error}') from error


def check_names(names: Sequence[str]) -> None:
    """Raise `ParameterError` for too many or too few classes, or one that is given twice."""
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ParameterError(f'slo.classes needs 1 to {MAX_CLASSES} names, each only once, '
                             f'not {names!s:.200}')


def _policy_options(values: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the policy that are not its defaults, once one was made with them."""
    policy = values['scheduler.policy']
    given = {option: parameter for option, parameter, default in POLICY_OPTIONS
             if values[parameter] != default}
    options = {option: values[parameter] for option, parameter in given.items()}
    try:
        known = option_types(policy, policy_class(policy))
        for option, parameter in given.items():
            if option not in known:
                raise ParameterError(f'{parameter} is not for the policy {policy}: set it back to '
                                     'its default first, or choose another policy')
        make_policy(policy, **options)
    except ValueError as error:
        raise ParameterError(f'scheduler: {error}') from error
    return options


def as_due(name: str, value: object, kind: type) -> object:
    """Return a value of parameter `name` in the type that is due: `40` means 40.0, `8` '8'."""
    if type(value) is int and (kind is float or kind is str and name in _NUMBERED):
        return kind(value)
    return value


def check_value(spec: Spec, value: object) -> None:
    if value is None:
        rid = ', or take its class out of slo.classes' if spec.name.startswith('slo.') else ''
        raise ParameterError(f'{spec.name} cannot be deleted: set it to its default, '
                             f'{spec.default!r}, instead{rid}')
    kind = type(spec.default)
    right = type(value) is kind or kind is float and type(value) is int
    if not right or kind is list and not all(isinstance(each, str) for each in value):
        raise ParameterError(f'{spec.name} must be a {spec.kind}, not {value!r:.80}')
    if spec.choices and value not in spec.choices:
        raise ParameterError(f'{spec.name} must be one of {", ".join(spec.choices)}, '
                             f'not {value!r:.80}')
    # Written so that NaN is refused too.
    if spec.low is not None and not spec.low <= value <= spec.high:
        raise ParameterError(f'{spec.name} must be from {spec.low:g} to {spec.high:g}, '
                             f'not {value}')
