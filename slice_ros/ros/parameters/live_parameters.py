# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The node's live parameters: checked as a whole, read as one typed snapshot."""

from collections.abc import Callable, Iterable

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter
from slice_ros.ros.compat import on_parameters
from slice_ros.ros.isolation.placement import PlacementError, try_out
from slice_ros.ros.parameters.overrides import MAX_NAME, MOST, unknown_overrides
from slice_ros.ros.parameters.parameter_specs import class_specs, CLASSES, descriptor, Spec, SPECS
from slice_ros.ros.parameters.settings import (
    as_due, check_names, check_value, ParameterError, Settings, settings_from)


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
        check_names(names)
        values = {spec.name: self._declare(spec) for spec in SPECS}
        for name in dict.fromkeys(names):
            values.update({spec.name: self._declare(spec) for spec in class_specs(name)})
            self._declared.add(name)
        self.settings = settings_from(names, values)
        try:
            try_out(self.settings.executor, self.settings.loop)
        except PlacementError as error:
            raise ParameterError(str(error)) from error
        on_parameters(node, self._prepare, self._check, self._apply)
        for sentence in unknown_overrides(node, names):
            node.get_logger().warning(sentence)

    def _declare(self, spec: Spec, ignore_override: bool = False) -> object:
        try:
            value = self._node.declare_parameter(
                spec.name, spec.default, descriptor(spec), ignore_override).value
        except InvalidParameterValueException as error:
            raise ParameterError(str(error)) from error
        due = as_due(spec.name, value, type(spec.default))
        try:
            check_value(spec, due)
        except ParameterError:
            self._node.undeclare_parameter(spec.name)
            raise
        if due is not value:
            self._node.set_parameters([Parameter(spec.name, value=due)])
        return due

    def _prepare(self, changes: list[Parameter]) -> list[Parameter]:
        """Refuse unknown parameters by name; turn integers into the type that is due."""
        missing = [p.name for p in changes if not self._node.has_parameter(p.name)]
        if missing:
            raise ParameterNotDeclaredException([name[:MAX_NAME] for name in missing[:MOST]])
        kinds = (type(self._node.get_parameter(p.name).value) for p in changes)
        due = [(p, as_due(p.name, p.value, kind)) for p, kind in zip(changes, kinds)]
        return [p if value is p.value else Parameter(p.name, value=value) for p, value in due]

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
        check_value(CLASSES, names)
        check_names(names)   # before anything is made of each
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
