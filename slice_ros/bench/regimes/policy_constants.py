# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The named numbers of the default policy, found in its modules, and other values for them."""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from slice_ros import scheduling

ROOM = Path(scheduling.__file__).parent
PACKAGE = scheduling.__name__
POLICY_FILES = ('slice/*.py', 'lengths.py')   # below ROOM
MOST_SHARE = .99    # a share is doubled to no more: at 1 nothing would be left


@dataclass(frozen=True, slots=True)
class Constant:
    """A named number of a module, and the modules that have a name for it."""

    module: str
    name: str
    value: int | float
    names: tuple[tuple[str, str], ...]   # (module, name there) of the module's own and of imports

    @property
    def half(self) -> int | float:
        """Half of it, a whole number where it is one; of 1 + x, x is halved."""
        if isinstance(self.value, int):
            return max(round(self.value / 2), 1)
        return 1 + (self.value - 1) / 2 if 1 < self.value < 2 else self.value / 2

    @property
    def double(self) -> int | float:
        """Twice it, `MOST_SHARE` where a number below 1 would reach 1; of 1 + x, x is doubled."""
        if isinstance(self.value, int):
            return 2 * self.value
        if self.value < 1:
            return max(min(2 * self.value, MOST_SHARE), self.value)
        return 1 + (self.value - 1) * 2 if 1 < self.value < 2 else 2 * self.value


def policy_constants() -> list[Constant]:
    """Return the upper-case numbers at module level of the default policy, in order of files."""
    trees = {_module_name(path): ast.parse(path.read_text()) for path in ROOM.rglob('*.py')}
    found = []
    for pattern in POLICY_FILES:
        for path in sorted(ROOM.glob(pattern)):
            module = _module_name(path)
            for name in _assigned(trees[module]):
                value = getattr(import_module(module), name)
                if type(value) in (int, float):
                    found.append(Constant(module, name, value, (
                        (module, name), *_imports_of(module, name, trees))))
    return found


@contextmanager
def changed(constant: Constant, value: int | float) -> Iterator[None]:
    """Give a constant another value within the block, in this process, under all its names."""
    places = [(import_module(module), name) for module, name in constant.names]
    try:
        for module, name in places:
            setattr(module, name, value)
        yield
    finally:
        for module, name in places:
            setattr(module, name, constant.value)


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOM).with_suffix('').parts
    return '.'.join([PACKAGE, *(parts[:-1] if parts[-1] == '__init__' else parts)])


def _assigned(tree: ast.Module) -> list[str]:
    """Return the upper-case names that a module gives a number of its own, at its own level.

    What is computed of others follows them, and is left out.
    """
    names = []
    for node in tree.body:
        if not isinstance(getattr(node, 'value', None), ast.Constant):
            continue
        targets = (node.targets if isinstance(node, ast.Assign)
                   else [node.target] if isinstance(node, ast.AnnAssign) else [])
        names += [t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper()]
    return list(dict.fromkeys(names))


def _imports_of(module: str, name: str, trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """Return (module, name there) of each module that imports a name from `module`."""
    return [(importer, alias.asname or alias.name) for importer, tree in trees.items()
            for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == module
            for alias in node.names if alias.name == name]
