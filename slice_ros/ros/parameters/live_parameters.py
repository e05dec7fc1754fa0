# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node's live parameters: checked as a whole, read as one typed snapshot."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
import re

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros.engine import EngineConfig
from slice_ros.ros.parameters.overrides import MAX_NAME, MOST, unknown_overrides
from slice_ros.ros.parameters.parameter_specs import (
    class_specs, CLASSES, descriptor, MAX_CLASSES, Spec, SPECS)
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


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent set of parameters."""

    engine: EngineConfig
    server: ServerConfig
    rate_control: RateControl
    classes: Mapping[str, SloClass]
    preambles: Mapping[str, Messages]   # by class name
    max_text_bytes: int
    max_messages: int
    unattended_s: float
    result_timeout_s: int
    status_period_s: float
    drain_s: float
    language: str
    autostart: bool


class ParameterError(Exception):
    """A set of parameters that cannot be used; the sentence names the wrong one."""


class Parameters:
    """The live parameters of a node: `settings` is the snapshot in force.

    While `engine_fixed()` is true, no parameter of the engine can change. `check` raises
    ``ValueError`` for a snapshot that the loaded engine cannot serve by. `changed` is called with
    the snapshots (before, after) when another one has come into force.
    """

    def __init__(self, node: Node, engine_fixed: Callable[[], bool],
                 check: Callable[[Settings], None],
                 changed: Callable[[Settings, Settings], None]) -> None:
        """Declare every parameter and read them. Raises `ParameterError`."""
        self._node, self._engine_fixed, self._changed = node, engine_fixed, changed
        self._check_with_engine = check
        self._declaring = False   # rclpy calls back for each declaration: once for all is enough
        self._declared: set[str] = set()   # classes that have parameters
        names = self._declare(CLASSES)
        _check_names(names)
        values = {spec.name: self._declare(spec) for spec in SPECS}
        for name in dict.fromkeys(names):
            values.update({spec.name: self._declare(spec) for spec in class_specs(name)})
            self._declared.add(name)
        self.settings = settings_from(names, values)
        node.add_pre_set_parameters_callback(self._prepare)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)
        for sentence in unknown_overrides(node, names):
            node.get_logger().warning(sentence)

    def _declare(self, spec: Spec, ignore_override: bool = False) -> object:
        try:
            value = self._node.declare_parameter(
                spec.name, spec.default, descriptor(spec), ignore_override).value
        except InvalidParameterValueException as error:
            raise ParameterError(str(error)) from error
        try:
            _check(spec, value)
        except ParameterError:
            self._node.undeclare_parameter(spec.name)
            raise
        if type(value) is int and type(spec.default) is float:  # `40` in a file means 40.0
            value = float(value)
            self._node.set_parameters([Parameter(spec.name, value=value)])
        return value

    def _prepare(self, changes: list[Parameter]) -> list[Parameter]:
        """Refuse unknown parameters by name; turn integers into doubles where a double is due."""
        missing = [p.name for p in changes if not self._node.has_parameter(p.name)]
        if missing:
            raise ParameterNotDeclaredException([name[:MAX_NAME] for name in missing[:MOST]])
        return [Parameter(p.name, value=float(p.value))
                if type(p.value) is int and type(self._node.get_parameter(p.name).value) is float
                else p for p in changes]

    def _follow_classes(self, names: Iterable[str]) -> None:
        """Declare the parameters of new classes, and undeclare those of removed ones."""
        node = self._node
        for name in self._declared - set(names):
            for spec in class_specs(name):
                if node.has_parameter(spec.name):
                    node.undeclare_parameter(spec.name)
        for spec in [spec for name in names for spec in class_specs(name)]:
            if not node.has_parameter(spec.name):
                try:
                    self._declare(spec)
                except ParameterError as error:   # an override that is out of range
                    node.get_logger().error(f'{error}: it has its default')
                    self._declare(spec, ignore_override=True)
        self._declared = set(names)

    def _next(self, changes: Iterable[Parameter]) -> Settings:
        """Return the snapshot that `changes` lead to. Raises `ParameterError`."""
        node, changed = self._node, {p.name: p.value for p in changes}
        names = changed.get(CLASSES.name, node.get_parameter(CLASSES.name).value)
        _check(CLASSES, names)
        _check_names(names)   # before anything is made of each
        specs = SPECS + tuple(spec for name in names for spec in class_specs(name))
        values = {
            spec.name: node.get_parameter_or(
                spec.name, Parameter(spec.name, value=spec.default)).value for spec in specs}
        settings = settings_from(names, values | changed)
        if self._engine_fixed() and settings.engine != self.settings.engine:
            name = next(name for name in changed if name.startswith('engine.'))
            raise ParameterError(f'{name} can be set while the node is unconfigured only: '
                                 'deactivate it and clean it up first')
        try:
            self._check_with_engine(settings)
        except ValueError as error:
            raise ParameterError(f'scheduler: {error}') from error
        return settings

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            if not self._declaring:
                self._next(changes)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        if self._declaring:
            return
        self._declaring = True
        try:
            self._follow_classes(self._node.get_parameter(CLASSES.name).value)
        finally:
            self._declaring = False
        before, self.settings = self.settings, self._next([])
        if self.settings != before:
            self._changed(before, self.settings)


def settings_from(names: Iterable[str], values: Mapping[str, object]) -> Settings:
    """Check a whole set of values and make the snapshot. Raises `ParameterError`."""
    names = list(names)
    _check_names(names)
    for spec in SPECS + tuple(spec for name in names for spec in class_specs(name)):
        _check(spec, values[spec.name])
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
    engine = EngineConfig(**{name: values[f'engine.{name}'] for name in (
        'model', 'device', 'weights', 'max_context', 'slots', 'max_batch', 'memory_fraction',
        'threads')})
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
        max_text_bytes=values['limits.max_text_bytes'],
        max_messages=values['limits.max_messages'],
        unattended_s=values['limits.unattended_s'],
        result_timeout_s=values['limits.result_timeout_s'],
        status_period_s=values['status.period_s'], drain_s=values['shutdown.drain_s'],
        language=values['speech.language'],
        autostart=values['autostart'])


def _preamble(name: str, values: Mapping[str, object]) -> Messages:
    text, most = values[f'slo.{name}.preamble'], values['limits.max_text_bytes']
    if len(text) > most:
        raise ParameterError(f'slo.{name}.preamble has {len(text)} characters: shorten it to '
                             f'{most}')
    try:
        return parse_preamble(text)
    except ValueError as error:
        raise ParameterError(f'slo.{name}.preamble {error}') from error


def _check_names(names: Sequence[str]) -> None:
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


def _check(spec: Spec, value: object) -> None:
    if value is None:
        rid = ', or take its class out of slo.classes' if spec.name.count('.') == 2 else ''
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
