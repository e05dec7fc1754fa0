# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What of rclpy is called is listed in rclpy_api.txt, and is in every release that is supported.

Outside `ros/compat.py`, which asks what is there. SLICE_RCLPY_SOURCES names folders with the
modules of other releases (`rclpy/rclpy` of the branches of github.com/ros2/rclpy).
"""

import ast
from collections import defaultdict
import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name('rclpy_api.txt')
# Methods whose names are theirs alone in this package, by class.
METHODS = {
    'rclpy.node.Node': (
        'add_waitable', 'count_clients', 'count_publishers', 'count_subscribers', 'create_client',
        'create_guard_condition', 'create_publisher', 'create_service', 'create_subscription',
        'create_timer', 'declare_parameter', 'destroy_client', 'destroy_guard_condition',
        'destroy_node', 'destroy_publisher', 'destroy_subscription', 'destroy_timer', 'get_clock',
        'get_fully_qualified_name', 'get_logger', 'get_parameter', 'get_parameter_or',
        'has_parameter', 'resolve_service_name', 'set_parameters', 'undeclare_parameter'),
    'rclpy.executors.Executor': ('create_task', 'spin_once', 'wake'),
    'rclpy.task.Future': ('add_done_callback', 'cancelled', 'set_exception', 'set_result'),
    'rclpy.client.Client': ('call_async', 'remove_pending_request', 'service_is_ready'),
    'rclpy.publisher.Publisher': ('get_subscription_count',),
    'rclpy.action.client.ActionClient': ('send_goal_async', 'server_is_ready'),
    'rclpy.action.client.ClientGoalHandle': ('cancel_goal_async', 'get_result_async'),
    'rclpy.action.server.ServerGoalHandle': (
        'abort', 'canceled', 'execute', 'publish_feedback', 'succeed'),
    'rclpy.lifecycle.node.LifecycleNodeMixin': (
        'add_managed_entity', 'trigger_activate', 'trigger_configure'),
}
OWNER = {name: owner for owner, names in METHODS.items() for name in names}


def called() -> list[str]:
    """Return what the package uses: imported names, and methods with their keywords."""
    found = defaultdict(set)
    for path in (ROOT / 'slice_ros').rglob('*.py'):
        if path.name == 'compat.py':
            continue
        names = {}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'rclpy':
                for alias in node.names:
                    names[alias.name] = f'{node.module}.{alias.name}'
                    found[names[alias.name]] |= set()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
            if isinstance(node.func, ast.Attribute) and node.func.attr in OWNER:
                found[f'{OWNER[node.func.attr]}.{node.func.attr}'] |= keywords
            elif isinstance(node.func, ast.Name) and node.func.id in names:
                found[names[node.func.id]] |= keywords
    return [' '.join((name, *sorted(found[name]))) for name in sorted(found)]


class Release:
    """The modules of one release of rclpy, read without importing them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def missing(self, line: str) -> str:
        """Return what of a line of the list is not there; '' if all is."""
        name, *keywords = line.split()
        parts = name.split('.')[1:]
        for length in range(len(parts), 0, -1):
            module = self._folder.joinpath(*parts[:length])
            path = module / '__init__.py' if module.is_dir() else module.with_suffix('.py')
            if path.is_file():
                break
        else:
            return name
        function = self._find(ast.parse(path.read_text()), parts[length:])
        if function is None:
            return name
        known = self._keywords(function)
        absent = [keyword for keyword in keywords if known and keyword not in known]
        return f'{name}: {", ".join(absent)}' if absent else ''

    def _find(self, body: ast.AST, path: list[str]) -> ast.AST | None:
        for wanted in path:
            # The last: those before it are overloads.
            named = [node for node in ast.walk(body) if wanted in self._names(node)]
            if not named:
                return None
            body = named[-1]
        return body

    def _names(self, node: ast.AST) -> set[str | None]:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return {getattr(target, 'id', None) for target in targets}
        if isinstance(node, ast.ImportFrom):
            return {alias.asname or alias.name for alias in node.names}
        return {getattr(node, 'name', None)}

    def _keywords(self, node: ast.AST) -> set[str]:
        """Return what a function or a constructor takes; empty where anything may be taken."""
        if isinstance(node, ast.ClassDef):
            made = [each for each in node.body if getattr(each, 'name', '') == '__init__']
            node = made[-1] if made else None
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.args.kwarg:
            return set()
        return {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}


def releases() -> list[Path]:
    """Return the folders of the installed release and of those that are given."""
    given = os.environ.get('SLICE_RCLPY_SOURCES', '')
    installed = Path(importlib.util.find_spec('rclpy').origin).parent
    return [installed, *(Path(each) for each in given.split(os.pathsep) if each)]


def test_the_list_is_what_is_called():
    assert LIST.read_text().splitlines() == called(), 'write it anew, and check every release'


@pytest.mark.parametrize('folder', releases(), ids=str)
def test_a_release_has_all_that_is_called(folder):
    release = Release(folder)
    missing = [found for line in LIST.read_text().splitlines() if (found := release.missing(line))]
    assert not missing, 'what only some releases have belongs into ros/compat.py'


def test_the_check_finds_what_is_missing():
    """The check itself: an unknown keyword, method and module."""
    release = Release(releases()[0])
    assert release.missing('rclpy.node.Node.create_timer nonsense').endswith(': nonsense')
    assert release.missing('rclpy.node.Node.nonsense') and release.missing('rclpy.nonsense.Node')
