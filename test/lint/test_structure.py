# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package: imports point down, without circles; rooms and files stay small."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = 'slice_ros'
# From the bottom up. A module belongs to the longest prefix that fits, and imports from its own
# line or from lines above it here. docs/architecture.md draws the same order.
LAYERS = (
    ('slo', 'errors', 'installed', 'engine_venv'),
    ('request',),
    ('scheduling',),
    ('scheduling.slice', 'scheduling.baselines'),
    ('scheduling.registry', 'scheduling.admission'),
    ('vllm',),
    ('engine.config', 'engine.chat_options', 'engine.cores'),
    ('engine.kv', 'engine.checkpoints'),
    ('engine.models',),
    ('engine.adapters',),
    ('engine.runners',),
    ('engine.runners.native', 'engine.runners.torch'),
    ('engine.runners.cuda',),
    ('engine.runners.torch_paths',),
    ('engine.runners.choose',),
    ('engine.text',),
    ('engine.vision',),
    ('engine',),
    ('serving',),
    ('ros.compat',),
    ('ros.qos',),
    ('ros.parameters', 'ros.isolation'),
    ('ros',),
    ('client',),
    ('behaviours', 'gateway', 'router'),
    ('examples',),
    ('bench',),
    ('bench.answers',),
    ('bench.engine', 'bench.ros', 'bench.schedule', 'bench.vllm'),
    ('bench.regimes', 'bench.gpu', 'bench.quantised', 'bench.images_bench'),
    ('bench.doors_bench',),
    ('cli',),
)
# Modules that a room may never import, at any depth of its own modules.
FORBIDDEN = {
    'scheduling': ('torch', 'rclpy', 'transformers'),
    'slo': ('torch', 'rclpy', 'transformers'),
    'request': ('torch', 'rclpy', 'transformers'),
    'engine': ('rclpy',),
    'engine.runners.native': ('torch', 'transformers'),
    'serving': ('rclpy', 'torch'),
    'vllm': ('rclpy', 'torch', 'transformers'),
    'client': ('torch', 'transformers', f'{PACKAGE}.engine', f'{PACKAGE}.serving'),
    'behaviours': ('torch', 'transformers', f'{PACKAGE}.engine', f'{PACKAGE}.serving'),
    'gateway': ('torch', 'transformers', f'{PACKAGE}.engine', f'{PACKAGE}.serving'),
    'router': ('torch', 'transformers', f'{PACKAGE}.engine', f'{PACKAGE}.serving'),
}
MOST_FILES = 15       # Python files of one room
MOST_LINES = 260      # of one file
MOST_BODY_LINES = 60  # of one function
MOST_COLUMNS = 110    # of a line of documentation


def modules() -> dict[str, Path]:
    """Return the modules of the package by name, without the package's own."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports_of(path: Path) -> set[str]:
    """Return all that a file imports, anywhere in it: `a.b` of `import a.b` and `from a import b`.

    Imports inside functions and for type checkers count: they are dependencies as well.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: relative import'
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def import_graph() -> dict[str, set[str]]:
    """Return, for each module, the modules of the package that it imports."""
    names, graph = modules(), {}
    for name, path in names.items():
        graph[name] = set()
        for imported in imports_of(path):
            if not imported.startswith(f'{PACKAGE}.'):
                continue
            target = imported.removeprefix(f'{PACKAGE}.')
            while target and target not in names:   # a name inside a module
                target = target.rpartition('.')[0]
            if target and target != name:
                graph[name].add(target)
    return graph


def layer(module: str) -> int:
    """Return the number of the layer of a module, 0 at the bottom."""
    fitting = [(len(prefix), number) for number, prefixes in enumerate(LAYERS)
               for prefix in prefixes if module == prefix or module.startswith(f'{prefix}.')]
    assert fitting, f'{module} belongs to no layer: give it one here and in docs/architecture.md'
    return max(fitting)[1]


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that point from a lower to a higher layer."""
    return [f'{module} -> {target}' for module, targets in sorted(graph.items()) if module
            for target in sorted(targets) if target and layer(target) > layer(module)]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return a circle of imports, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_point_down():
    assert not arrows_up(import_graph())


def test_imports_make_no_circle():
    assert not circle(import_graph())


@pytest.mark.parametrize('module, target', [
    ('scheduling.policy', 'engine.engine'), ('engine.engine', 'serving.loop'),
    ('serving.server', 'ros.node'), ('engine.runners.torch.linear', 'engine.runners.cuda.kernels'),
    ('ros.node', 'bench.cli'), ('scheduling.policy', 'scheduling.slice.slice_policy')])
def test_an_arrow_up_is_found(module, target):
    """The check itself: one wrong import in the graph as it is."""
    graph = import_graph()
    graph[module] = graph.get(module, set()) | {target}
    assert arrows_up(graph) == [f'{module} -> {target}']


def test_a_circle_is_found():
    """The check itself: sampling and its use on a device imported each other once."""
    graph = import_graph()
    assert 'engine.text.sampling' in graph['engine.text.device_sampling']
    graph['engine.text.sampling'].add('engine.text.device_sampling')
    assert {'engine.text.sampling', 'engine.text.device_sampling'} <= set(circle(graph))


@pytest.mark.parametrize('room', FORBIDDEN)
def test_a_room_does_without(room):
    for name, path in modules().items():
        if name != room and not name.startswith(f'{room}.'):
            continue
        for other in FORBIDDEN[room]:
            wrong = [i for i in imports_of(path) if i == other or i.startswith(f'{other}.')]
            assert not wrong, f'{path} imports {wrong[0]}'


def test_nothing_needs_the_scheduler_for_vllm():
    """It is named to vLLM, which imports it."""
    graph = import_graph()
    inside = {name for name in graph if name == 'vllm' or name.startswith('vllm.')}
    assert inside and not [f'{module} -> {target}' for module in graph.keys() - inside
                           for target in graph[module] & inside]


def test_rooms_are_small_and_say_what_they_are_for():
    for folder in {path.parent for path in modules().values()}:
        assert len(list(folder.glob('*.py'))) <= MOST_FILES, folder
        assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text())), folder


def test_each_module_name_is_used_once():
    names = [path.name for path in modules().values() if not path.name.startswith('__')]
    assert not {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize('path', [*modules().values(), *(ROOT / 'launch').glob('*.py')],
                         ids=lambda path: f'{path.parent.name}/{path.name}')
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count('\n') <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < MOST_BODY_LINES, node.name


def test_the_picture_names_every_room():
    """docs/architecture.md draws the folders that there are, and no other."""
    picture = re.search('```\n(.*?)```', (ROOT / 'docs/architecture.md').read_text(), re.DOTALL)[1]
    drawn = set(re.findall(r'\b((?:[a-z_]+/)+)', picture))
    rooms = {f'{path.parent.relative_to(ROOT / PACKAGE)}/' for path in modules().values()} - {'./'}
    assert drawn == rooms


@pytest.mark.parametrize('page', [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))],
                         ids=lambda page: page.name)
def test_documentation_fits_the_columns(page):
    """Tables and links aside, which cannot be broken."""
    long = [line for line in page.read_text().splitlines()
            if len(line) > MOST_COLUMNS and not line.startswith('|') and '](' not in line]
    assert not long
