# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A slice node without a model, whose answers and faults a test chooses and times."""

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from slice_ros import msg, srv
from slice_ros.action import Generate
from slice_ros.ros.qos import SERVICES, TOKENS

CLASSES = {'control': (500.0, 50.0, 1500.0), 'dialogue': (60e3, 60e3, 0.0)}


class FakeSlice(Node):
    """Answers as `way` says: serve, silent (accepts, never answers), die (after a token), a code.

    In the way `wait` it gives an answer, but not its end before `release`.

    While `mute` it answers nothing at all, like a process that is gone or whose link is.
    """

    def __init__(self, namespace: str) -> None:
        super().__init__('slice', namespace=namespace)
        self.goals: list[Generate.Goal] = []
        self._unanswered: dict[bytes | str, Future] = {}
        group = ReentrantCallbackGroup()
        self.create_service(srv.GetStatus, '~/get_status', self._status, qos_profile=SERVICES,
                            callback_group=group)
        self.create_service(srv.CheckAdmission, '~/check_admission', self._admission,
                            qos_profile=SERVICES, callback_group=group)
        self.create_service(srv.Embed, '~/embed', self._embed, qos_profile=SERVICES,
                            callback_group=group)
        self.action = ActionServer(
            self, Generate, '~/generate', self._serve, callback_group=group,
            cancel_callback=self._cancel, goal_service_qos_profile=SERVICES,
            result_service_qos_profile=SERVICES, cancel_service_qos_profile=SERVICES,
            feedback_pub_qos_profile=TOKENS)
        self.reset()

    def reset(self, way='serve', ttft_ms=20.0, completion_ms=100.0, feasible=True) -> None:
        """Behave in this way from now on."""
        self.way, self.mute, self.state = way, False, 'ready'
        self.ttft_ms, self.completion_ms, self.feasible = ttft_ms, completion_ms, feasible
        self.goals.clear()
        self.embedding = self.cancelled = 0
        self.embedding_size = 1
        self.release()

    def release(self) -> None:
        """End all goals that wait."""
        for future in self._unanswered.values():
            future.set_result(None)
        self._unanswered.clear()

    async def _status(self, request, response):
        if self.mute:
            await Future()
        response.state, response.engine.embedding_size = self.state, self.embedding_size
        response.scheduler.classes = [
            msg.ClassStatus(slo=msg.SloClass(name=name, ttft_ms=slo[0], tpot_ms=slo[1],
                                             deadline_ms=slo[2], utility=1.0))
            for name, slo in CLASSES.items()]
        return response

    async def _admission(self, request, response):
        if self.mute:
            await Future()
        response.feasible, response.tpot_ms = self.feasible, 5.0
        response.ttft_ms, response.completion_ms = self.ttft_ms, self.completion_ms
        return response

    async def _embed(self, request, response):
        self.embedding += 1
        if self.mute or self.way == 'silent':
            self._unanswered[f'text {self.embedding}'] = future = Future()
            await future
        if isinstance(self.way, int):
            response.error_code, response.error_msg = self.way, 'refused'
        response.model = self.get_namespace().strip('/')
        response.embeddings = [msg.Embedding(values=[float(len(text))]) for text in request.texts]
        return response

    def _cancel(self, handle) -> CancelResponse:
        self.cancelled += 1
        if not self.mute and bytes(handle.goal_id.uuid) in self._unanswered:
            self._unanswered.pop(bytes(handle.goal_id.uuid)).set_result(None)
        return CancelResponse.ACCEPT

    async def _serve(self, handle) -> Generate.Result:
        goal = handle.request
        self.goals.append(goal)
        if self.mute or self.way == 'silent':
            return await self._nothing(handle)
        if isinstance(self.way, int):
            handle.abort()
            return Generate.Result(request_id='theirs', error_code=self.way, error_msg='refused',
                                   finish_reason='error')
        name = self.get_namespace().strip('/')
        for number, text in enumerate((name, ' says', ' yes')):
            handle.publish_feedback(Generate.Feedback(
                text=text, sequence=number, tokens=number + 1,
                logprobs=logprobs(goal, text)))
            if self.way == 'die':
                self.mute = True
                return await self._nothing(handle)
        if self.way == 'wait':
            await self._nothing(handle)
        handle.succeed()
        slo = msg.SloClass(name=goal.slo_class, ttft_ms=goal.ttft_ms, tpot_ms=goal.tpot_ms,
                           deadline_ms=goal.deadline_ms, utility=1.0)
        report = msg.SloReport(
            request_id='theirs', slo=slo, served=True, attained=True, ttft_met=True,
            tpot_met=True, deadline_met=True, output_tokens=3, ttft_ms=2.0, tpot_ms=1.0,
            completion_ms=4.0, requested_class=goal.slo_class)
        return Generate.Result(request_id='theirs', text=f'{name} says yes',
                               logprobs=logprobs(goal, name, ' says', ' yes'),
                               finish_reason='stop', report=report)

    async def _nothing(self, handle) -> Generate.Result:
        """Give no answer before a cancel, or `reset`."""
        future = self._unanswered[bytes(handle.goal_id.uuid)] = Future()
        await future
        return Generate.Result()   # rclpy aborts the goal


def logprobs(goal, *texts) -> msg.TokenLogprobs:
    """Return those of tokens with these texts, where a goal wants them."""
    if not goal.sampling.logprobs:
        return msg.TokenLogprobs()
    return msg.TokenLogprobs(
        tokens=[len(text) for text in texts], logprobs=[-1.0] * len(texts),
        special=[False] * len(texts), sizes=[len(text) for text in texts],
        texts=''.join(texts).encode())
