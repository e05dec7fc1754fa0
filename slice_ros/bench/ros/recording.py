# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded `slo_reports`: a rosbag2 recording (sqlite3 or mcap) or JSON lines, read without ROS.

Message definitions come from the bag, or from the package's own `msg/` if the bag has none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import json
import math
from pathlib import Path
from statistics import median_high
from types import SimpleNamespace

from slice_ros.errors import ErrorCode
from slice_ros.installed import share
from slice_ros.slo import SloClass, SloReport

TYPE = 'slice_ros/msg/SloReport'
BAG_ENDINGS = ('.db3', '.mcap')
MAX_REPORTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """One report as it was recorded."""

    received: float   # ROS time at which the request was received, seconds
    error: ErrorCode
    report: SloReport

    @property
    def cancelled(self) -> bool:
        """Whether its caller ended it: then it counts neither as attained nor as missed."""
        return self.error is ErrorCode.CANCELLED


def read_reports(path: Path, topic: str = '') -> dict[str, list[Record]]:
    """Return the records of each topic (or of `topic` alone) in order of arrival.

    `path` is a bag (its folder or its .db3 or .mcap file), or a file of JSON lines with the fields
    of msg/SloReport, whose name then stands for the topic. Raises ``ValueError`` when it cannot be
    read or has no report.
    """
    if not path.exists():
        raise ValueError(f'there is no {path}: give a recorded bag or a file of JSON lines')
    topics: dict[str, list[Record]] = {}
    bag = path.is_dir() or path.suffix in BAG_ENDINGS
    for count, (name, message) in enumerate(_bag(path) if bag else _json_lines(path)):
        if count == MAX_REPORTS:
            raise ValueError(f'{path} holds more than {MAX_REPORTS} reports: split it')
        try:
            topics.setdefault(name, []).append(_record(message))
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f'{path}: report {count + 1}: {_line(error)}') from error
    if not topics:
        raise ValueError(f'{path} holds no {TYPE}: record /slice/slo_reports')
    if topic and topic not in topics:
        raise ValueError(f'{path} has no reports on {topic!r:.200}, but on {", ".join(topics)}')
    return {name: sorted(records, key=lambda record: record.received)
            for name, records in sorted(topics.items()) if topic in ('', name)}


def _bag(path: Path) -> Iterator[tuple[str, object]]:
    from rosbags.rosbag2 import Reader
    try:
        with Reader(path) as reader:
            types = {}  # by message definition
            connections = [c for c in reader.connections if c.msgtype == TYPE]
            for connection, _, data in reader.messages(connections) if connections else ():
                definition = connection.msgdef
                if definition not in types:
                    types[definition] = _types(definition)
                yield connection.topic, types[definition].deserialize_cdr(data, TYPE)
    except Exception as error:  # a broken file makes the libraries raise anything
        raise ValueError(f'{path} cannot be read as a bag: {_line(error)}') from error


def _types(definition):
    """Return the types of a message definition, without constants: only fields are read."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    if definition.format is MessageDefinitionFormat.MSG:
        found = get_types_from_msg(definition.data, TYPE)
    else:
        found = {}
        for name in ('SloClass', 'SloReport'):
            text = (share() / 'msg' / f'{name}.msg').read_text()
            found.update(get_types_from_msg(text, f'slice_ros/msg/{name}'))
    types = get_typestore(Stores.EMPTY)
    types.register({name: ([], fields) for name, (_, fields, *_) in found.items()})
    return types


def _json_lines(path: Path) -> Iterator[tuple[str, object]]:
    try:
        with path.open(encoding='utf-8') as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    message = json.loads(line, object_hook=lambda d: SimpleNamespace(**d))
                    yield path.name, message
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f'{path} is neither a bag nor JSON lines of reports: '
                         f'{_line(error)}') from error


def _record(message) -> Record:
    slo = message.slo
    report = SloReport(
        request_id=str(message.request_id),
        slo=SloClass(slo.name, slo.ttft_ms, slo.tpot_ms, slo.deadline_ms, slo.utility),
        served=bool(message.served), prompt_tokens=_count(message, 'prompt_tokens'),
        output_tokens=_count(message, 'output_tokens'), ttft=_seconds(message, 'ttft_ms'),
        tpot=_seconds(message, 'tpot_ms'), completion=_seconds(message, 'completion_ms'),
        max_gap=_seconds(message, 'max_gap_ms'), elapsed=_seconds(message, 'elapsed_ms'))
    received = message.stamp.sec + message.stamp.nanosec * 1e-9
    if not abs(received) < 1 << 40:
        raise ValueError(f'the stamp is {received:g} s: give a time')
    return Record(float(received), ErrorCode(message.error_code), report)


def _seconds(message, name: str) -> float:
    value = getattr(message, name)
    value = math.nan if value is None else float(value)
    if value < 0 or math.isinf(value):
        raise ValueError(f'{name} is {value}: give milliseconds, NaN for none')
    return value / 1e3


def _count(message, name: str) -> int:
    value = getattr(message, name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError(f'{name} is {value!r:.80}: give a whole number')
    return value


def _line(error: BaseException) -> str:
    text = ' '.join(f'{error}'.split()) or type(error).__name__
    return ''.join(c if c.isprintable() else '?' for c in text[:300])


def trace_lines(records: Iterable[Record]) -> tuple[list[str], int, int]:
    """Return a trace for ``simulate --trace``: one request a line, in order of arrival.

    If the server refused a request or gave it up, the length of its answer is unknown: it gets
    the median lengths of the served requests of its class where these are larger. A request with
    no tokens and no served one of its class is left out. Returns (lines, requests with medians,
    requests left out).
    """
    records = list(records)
    served: dict[str, list[SloReport]] = {}
    for record in records:
        if record.report.served:
            served.setdefault(record.report.slo.name, []).append(record.report)
    usual = {name: (median_high(r.prompt_tokens for r in group),
                    median_high(r.output_tokens for r in group))
             for name, group in served.items()}
    lines, guessed, left_out = [], 0, 0
    for record in records:
        report, slo = record.report, record.report.slo
        prompt, output = report.prompt_tokens, report.output_tokens
        if not report.served and not record.cancelled and slo.name in usual:
            guessed += 1
            prompt, output = prompt or usual[slo.name][0], max(output, usual[slo.name][1])
        if not prompt or not output:
            left_out += 1
            continue
        lines.append(json.dumps({
            'arrival': round(record.received - records[0].received, 6), 'class': slo.name,
            'prompt_tokens': prompt, 'output_tokens': output,
            'slo': {'ttft_ms': slo.ttft_ms, 'tpot_ms': slo.tpot_ms,
                    'deadline_ms': slo.deadline_ms, 'utility': slo.utility}}))
    return lines, guessed, left_out
