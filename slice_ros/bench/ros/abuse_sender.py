# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The hostile caller of ``slice_bench abuse``, in a process of its own.

It is sent the name of a case, sends its messages all at once, waits for their answers, and writes
what came. It runs at the lowest priority: only what the node does about it is to count.
"""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
import math
import os
import time

from slice_ros.bench.processes import orders, report
from slice_ros.bench.ros.abuse_corpus import Case, CORPUS
from slice_ros.errors import ErrorCode

DEFAULTS = {'slo_class': 'dialogue', 'prompt': 'Say something.', 'max_tokens': 4}
LOWEST_PRIORITY = 19
DISCOVERY = 30.0        # seconds in which the node has to be found
QUIET = 3.0             # seconds without an answer after which no more are expected
SENTENCE = 160          # characters of a sentence that are kept
# Of many messages at once the middleware keeps the newest, as many as the depth of the topic, or
# the ten of rclpy's own lifecycle services: the others get no answer from anybody.
LOSSY = ('prompt', 'transition')
Answered = Callable[[str, str], None]   # with a code and a sentence


class Sender:
    """One node with a client of every interface of the slice node."""

    def __init__(self) -> None:
        from lifecycle_msgs.srv import ChangeState
        from rcl_interfaces.srv import SetParametersAtomically
        import rclpy
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from slice_ros import msg, srv
        from slice_ros.action import Generate
        from slice_ros.ros.qos import SERVICES, TOKENS
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = self.node = rclpy.create_node('slice_bench_abuse', enable_rosout=False,
                                             start_parameter_services=False)
        self.goals = ActionClient(
            node, Generate, 'slice/generate', goal_service_qos_profile=SERVICES,
            result_service_qos_profile=SERVICES, cancel_service_qos_profile=SERVICES,
            feedback_sub_qos_profile=TOKENS)
        self.clients = {name: node.create_client(kind, f'slice/{path}', qos_profile=SERVICES)
                        for name, kind, path in (
                            ('text', srv.GenerateText, 'generate_text'),
                            ('embed', srv.Embed, 'embed'), ('cancel', srv.CancelRequest, 'cancel'),
                            ('admission', srv.CheckAdmission, 'check_admission'),
                            ('status', srv.GetStatus, 'get_status'),
                            ('transition', ChangeState, 'change_state'),
                            ('parameters', SetParametersAtomically,
                             'set_parameters_atomically'))}
        self.prompts = node.create_publisher(msg.Prompt, 'slice/dialogue/prompt', 1000)
        node.create_subscription(msg.TokenChunk, 'slice/dialogue/tokens', self._on_chunk, TOKENS)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.on_topic: list[Answered] = []    # of prompts by topic without an answer
        end = time.monotonic() + DISCOVERY
        while not (self.goals.server_is_ready() and self.prompts.get_subscription_count() and all(
                client.service_is_ready() for client in self.clients.values())):
            if time.monotonic() > end:
                raise ValueError('the node cannot be found')
            self.executor.spin_once(0.05)

    def throw(self, case: Case, patience: float) -> dict:
        """Send a case and return what came within `patience` seconds of its last message."""
        sends = [partial(WAYS[case.way], self, fields) for fields in case.requests()]
        answers: list[tuple[str, str]] = []
        self.on_topic.clear()
        begin = time.monotonic()
        for send in sends:
            send(lambda code, sentence: answers.append((code, ' '.join(sentence.split()))))
            self.executor.spin_once(0)   # an answer of an action may come before the next send
        lossy = case.way in LOSSY and len(sends) > 1
        self._wait(answers, len(sends), patience, QUIET if lossy else patience)
        seconds = time.monotonic() - begin
        if case.restore:
            restored: list[str] = []
            _parameters(self, case.restore, lambda code, sentence: restored.append(code))
            self._wait(restored, 1, patience, patience)
        codes = Counter(code for code, _ in answers).most_common()
        return {'begin': begin, 'seconds': seconds, 'sent': len(sends), 'answered': len(answers),
                'expected': 1 if lossy else len(sends),
                'code': codes[0][0] if len(codes) == 1 else ', '.join(
                    f'{number} {code}' for code, number in codes),
                'sentence': answers[0][1][:SENTENCE] if answers else ''}

    def _wait(self, answers: list, number: int, patience: float, quiet: float) -> None:
        """Spin until there are `number` answers, or none came for `quiet` seconds."""
        end, seen, moved = time.monotonic() + patience, 0, time.monotonic()
        while len(answers) < number and time.monotonic() < min(end, moved + quiet):
            self.executor.spin_once(0.05)
            if len(answers) > seen:
                seen, moved = len(answers), time.monotonic()

    def call(self, name: str, fields: Mapping, read: Callable[[object], tuple[str, str]],
             answered: Answered) -> None:
        """Call a service; `read` turns its response into a code and a sentence."""
        client = self.clients[name]
        future = client.call_async(filled(client.srv_type.Request(), fields))
        future.add_done_callback(lambda done: answered(*read(done.result())))

    def _on_chunk(self, chunk) -> None:
        # A prompt whose id cannot be used is answered under another one.
        if chunk.finished and self.on_topic:
            self.on_topic.pop(0)(code_name(chunk.error_code), chunk.error_msg)


def floor_ms(case: Case) -> float:
    """Return the processor time (ms) in which rclpy reads the message of a case from its bytes.

    Only of a single request with a list: texts are read at the speed of memory.
    """
    from rclpy.serialization import deserialize_message, serialize_message
    from slice_ros import srv
    from slice_ros.action import Generate
    kinds = {'goal': Generate.Goal, 'text': srv.GenerateText.Request}
    fields, *more = case.requests()
    values = (*fields.values(), *fields.get('response_format', {}).values())
    if case.way not in kinds or more or not any(isinstance(value, list) for value in values):
        return 0.0
    data = serialize_message(filled(kinds[case.way](), DEFAULTS | fields))
    begin = time.process_time()
    deserialize_message(data, kinds[case.way])
    return (time.process_time() - begin) * 1e3


def filled(message, fields: Mapping):
    """Return `message` with its fields set: messages from dicts, lists of them from lists."""
    kinds = message.get_fields_and_field_types()
    for name, value in fields.items():
        if isinstance(value, Mapping):
            filled(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            from slice_ros import msg
            kind = getattr(msg, kinds[name].removeprefix('sequence<slice_ros/').rstrip('>'))
            setattr(message, name, [filled(kind(), item) for item in value])
        else:
            setattr(message, name, value)
    return message


def code_name(number: int) -> str:
    """Return the name of an error code of `action/Generate`."""
    try:
        return ErrorCode(number).name
    except ValueError:
        return str(number)


def _coded(response) -> tuple[str, str]:
    return code_name(response.error_code), response.error_msg


def _goal(sender: Sender, fields: Mapping, answered: Answered) -> None:
    from slice_ros.action import Generate

    def accepted(future) -> None:
        if not future.result().accepted:
            answered('not accepted', '')
            return
        future.result().get_result_async().add_done_callback(
            lambda done: answered(*_coded(done.result().result)))
    sender.goals.send_goal_async(
        filled(Generate.Goal(), DEFAULTS | fields)).add_done_callback(accepted)


def _text(sender: Sender, fields: Mapping, answered: Answered) -> None:
    sender.call('text', DEFAULTS | fields, _coded, answered)


def _admission(sender: Sender, fields: Mapping, answered: Answered) -> None:
    sender.call('admission', DEFAULTS | fields, lambda response: (
        code_name(response.error_code), response.error_msg or response.reason), answered)


def _coded_call(name: str, sender: Sender, fields: Mapping, answered: Answered) -> None:
    sender.call(name, fields, _coded, answered)


def _status(sender: Sender, fields: Mapping, answered: Answered) -> None:
    sender.call('status', fields, lambda response: ('NONE', f'the node is {response.state}'),
                answered)


def _transition(sender: Sender, fields: Mapping, answered: Answered) -> None:
    sender.call('transition', {'transition': fields}, lambda response: (
        'done' if response.success else 'refused', ''), answered)


def _parameters(sender: Sender, fields: Mapping, answered: Answered) -> None:
    from rclpy.parameter import Parameter
    parameters = [Parameter(name, value=value).to_parameter_msg()
                  for name, value in fields.items()]
    sender.call('parameters', {'parameters': parameters}, lambda response: (
        'set' if response.result.successful else 'refused', response.result.reason), answered)


def _cancel_goal(sender: Sender, fields: Mapping, answered: Answered) -> None:
    from rclpy.action.client import ClientGoalHandle
    from unique_identifier_msgs.msg import UUID
    unknown = ClientGoalHandle(sender.goals, UUID(uuid=list(os.urandom(16))), None)
    unknown.cancel_goal_async().add_done_callback(
        lambda done: answered('refused' if done.result().return_code else 'done', ''))


def _goal_result(sender: Sender, fields: Mapping, answered: Answered) -> None:
    from rclpy.action.client import ClientGoalHandle
    from unique_identifier_msgs.msg import UUID
    unknown = ClientGoalHandle(sender.goals, UUID(uuid=list(os.urandom(16))), None)
    unknown.get_result_async().add_done_callback(
        lambda done: answered(f'goal status {done.result().status}', ''))


def _prompt(sender: Sender, fields: Mapping, answered: Answered) -> None:
    from slice_ros import msg
    known = {name: value for name, value in DEFAULTS.items() if name != 'slo_class'}
    sender.on_topic.append(answered)
    sender.prompts.publish(filled(msg.Prompt(), known | fields))


def _raw_prompt(sender: Sender, fields: Mapping, answered: Answered) -> None:
    """Publish bytes as they are. There is nobody to answer: the node has to go on answering."""
    sender.prompts.publish(fields['data'])
    _status(sender, {}, answered)


WAYS: dict[str, Callable[[Sender, Mapping, Answered], None]] = {
    'goal': _goal, 'text': _text, 'prompt': _prompt, 'raw_prompt': _raw_prompt,
    'admission': _admission, 'cancel': partial(_coded_call, 'cancel'),
    'embed': partial(_coded_call, 'embed'), 'status': _status, 'parameters': _parameters,
    'transition': _transition, 'cancel_goal': _cancel_goal, 'goal_result': _goal_result}


def main(patience: float) -> None:
    """Throw the cases that are named on the standard input."""
    if not math.isfinite(patience) or patience <= 0:
        raise ValueError(f'patience is {patience}: give seconds')
    lines = orders()
    os.nice(LOWEST_PRIORITY)
    cases = {case.name: (case, floor_ms(case)) for case in CORPUS}
    sender = Sender()
    report(ready=True)
    while True:
        case, floor = cases[lines.get()['case']]
        report(**sender.throw(case, patience), floor_ms=floor)


if __name__ == '__main__':
    parser = ArgumentParser()
    parser.add_argument('patience', type=float)
    main(**vars(parser.parse_args()))
