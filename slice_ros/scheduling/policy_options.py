# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The options of a policy: from values or text to `Policy.Options`, checked by their types."""

from collections.abc import Mapping
from dataclasses import fields
from typing import get_type_hints

from slice_ros.scheduling.policy import Policy

WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text'}
BOOLEANS = {'true': True, 'false': False}


def make_options(name: str, policy: type[Policy], values: Mapping[str, object]) -> Policy.Options:
    """Return the options of the policy `name` with these `values`, the others at their defaults.

    Raises ``ValueError`` naming the option that is unknown, of a wrong type or out of range.
    """
    types = option_types(name, policy)
    for key, value in values.items():
        wanted = _type_of(name, types, key)
        allowed = (int, float) if wanted is float else (wanted,)
        if wanted in WORDS and type(value) not in allowed:
            raise _wrong_type(name, key, wanted, value)
    return policy.Options(**values)


def parse_options(name: str, policy: type[Policy], texts: Mapping[str, str]) -> dict[str, object]:
    """Return the values that the `texts` of a command line give to the options of a policy.

    Raises ``ValueError`` naming the option that is unknown or whose text is not of its type.
    """
    types = option_types(name, policy)
    return {key: _parse(name, key, _type_of(name, types, key), text)
            for key, text in texts.items()}


def option_types(name: str, policy: type[Policy]) -> dict[str, type]:
    """Return the type of each option of a policy class, in order of declaration.

    Raises ``ValueError`` when its `Options` are no dataclass with types.
    """
    try:
        hints = get_type_hints(policy.Options)
        return {field.name: hints[field.name] for field in fields(policy.Options) if field.init}
    except (TypeError, NameError) as error:
        raise ValueError(f'policy {name}: its Options are no dataclass: {error}') from error


def _type_of(name: str, types: Mapping[str, type], key: str) -> type:
    if key not in types:
        known = f'choose one of {", ".join(types)}' if types else 'it has none'
        raise ValueError(f'policy {name}: unknown option {key!r:.80}: {known}')
    return types[key]


def _parse(name: str, key: str, wanted: type, text: str) -> object:
    try:
        if wanted is bool:
            return BOOLEANS[text.lower()]
        if wanted in (int, float, str):
            return wanted(text)
    except (KeyError, ValueError):
        raise _wrong_type(name, key, wanted, text) from None
    raise ValueError(f'policy {name}: option {key} cannot be given as text')


def _wrong_type(name: str, key: str, wanted: type, value: object) -> ValueError:
    return ValueError(f'policy {name}: {key} must be {WORDS[wanted]}, not {value!r:.80}')
