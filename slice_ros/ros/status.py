# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""What the node reports of itself: its status services, ~/scheduler_state and /diagnostics."""

import math
import time

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from slice_ros import msg, srv
from slice_ros.engine.vision.image_tokens import images_of
from slice_ros.installed import version
from slice_ros.ros import conversions
from slice_ros.ros.diagnostics import Diagnostics
from slice_ros.ros.host import Host
from slice_ros.ros.isolation import bounds, camera_images, contents
from slice_ros.ros.isolation.workers import Workers
from slice_ros.ros.parameters import Parameters
from slice_ros.ros.qos import NO_EVENTS, SERVICES, STATE
from slice_ros.scheduling.admission import Prediction
from slice_ros.serving import Server, Snapshot

LOG_EVERY = 10.0   # seconds between two log sentences about the gate
# Another node of the same name must be there so long, seconds: the graph keeps a dead one for 20.
NAMESAKE_S = 30.0
FRESH = 0.02       # seconds for which a state is good for other callers, unless it changes


class Status:
    """Answers ~/get_status and ~/check_admission, and publishes state and diagnostics.

    `publish` and `gate_changed` may be called from any thread. One of `workers` reads the prompts
    of ~/check_admission.
    """

    def __init__(self, node: Node, host: Host, parameters: Parameters, group: CallbackGroup,
                 workers: Workers) -> None:
        self._workers = workers
        self._latest: tuple = (None,)   # of ~/get_status: a mark, good until, the answer
        self._node, self._host, self._parameters = node, host, parameters
        self._version = version()
        self._alone_at = time.monotonic()   # when no other node of this name was seen last
        self._diagnostics = Diagnostics(node.get_fully_qualified_name().lstrip('/'))
        self._state_publisher = node.create_publisher(
            msg.SchedulerState, '~/scheduler_state', STATE, event_callbacks=NO_EVENTS)
        self._diagnostics_publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', 10, event_callbacks=NO_EVENTS)
        for kind, name, callback in (
                (srv.CheckAdmission, 'check_admission', self._check_admission),
                (srv.GetStatus, 'get_status', self._get_status)):
            node.create_service(kind, f'~/{name}', callback, qos_profile=SERVICES,
                                callback_group=group)

    def publish(self) -> None:
        """Publish the diagnostics and, while there is a server, its state."""
        server, state = self._host.server, self._host.state
        diagnostics = DiagnosticArray()
        diagnostics.header.stamp = self._node.get_clock().now().to_msg()
        if server is None:
            diagnostics.status = self._diagnostics.without_model(state, self._host.failure)
        else:
            snapshot = server.snapshot()
            scheduler = self._state_message(snapshot)
            self._state_publisher.publish(scheduler)
            diagnostics.status = self._diagnostics.with_model(
                time.monotonic(), state, self._engine_message(server), scheduler,
                snapshot.delivery, (snapshot.drafted, snapshot.right))
        self._diagnostics_publisher.publish(diagnostics)
        self._look_for_namesakes(time.monotonic())

    def _look_for_namesakes(self, now: float) -> None:
        """Warn once each time that another node has had this node's name for `NAMESAKE_S`."""
        if self._node.count_publishers(self._state_publisher.topic_name) < 2:
            self._alone_at = now
        elif now - self._alone_at > NAMESAKE_S:
            self._alone_at = math.inf
            name = self._node.get_fully_qualified_name()
            self._node.get_logger().warning(
                f'another node is called {name} too: each request reaches both, and each caller '
                'gets two answers. Give one of them another name or namespace')

    def gate_changed(self, shut: bool) -> None:
        """Report that the pacing gate fell shut, is still shut, or is open again."""
        if shut:
            self._node.get_logger().error(
                'the pacing gate is shut: nothing is generated while the executor or the clock '
                'of the node stands still', throttle_duration_sec=LOG_EVERY)
        else:
            self._node.get_logger().warning('the pacing gate is open again',
                                            throttle_duration_sec=LOG_EVERY)
        self.publish()

    def _get_status(self, request, response):
        server = self._host.server
        response.state, response.version = self._host.state, self._version
        if server is not None:
            found, now = (server, self._parameters.settings, server.mark()), time.monotonic()
            if found != self._latest[0] or now > self._latest[1]:
                self._latest = (found, now + FRESH, self._engine_message(server),
                                self._state_message(server.snapshot()))
            response.engine, response.scheduler = self._latest[2:]
        return response

    async def _check_admission(self, request, response):
        settings, server = self._parameters.settings, self._host.serving()
        slo = conversions.slo_class(request.slo_class, request, settings)
        bounds.check_texts(request, settings.max_messages, settings.max_text_bytes)
        camera_images.check_images(request)
        images = any(camera_images.images_in(request))
        asked = contents.taken(request)

        def predict() -> tuple[Prediction, int]:
            tokens, seen = asked.prompt_tokens, []
            options = conversions.chat_options(asked, settings.chat[slo.name])
            thought = options.budget if options.reasoning == 'on' else 0
            if asked.prompt or asked.messages:
                messages = conversions.messages(asked, settings)
                if images:
                    vision = server.engine.vision
                    messages = vision.glanced(
                        camera_images.with_pictures(messages, asked, vision))
                    seen = images_of(messages)
                prompt = server.engine.encode_chat(messages, conversions.tools(asked), options)
                tokens = len(prompt)
                thought = server.engine.thought_tokens(prompt, asked.max_tokens, options)
            return server.predict(slo, tokens, asked.max_tokens, seen, thought), tokens
        prediction, response.prompt_tokens = await self._workers.compute(
            predict, settings.server.max_queued, utility=slo.utility,
            heavy=images or bounds.text_length(asked) + bounds.tools_length(asked) > bounds.HEAVY)
        response.feasible, response.reason = prediction.feasible, prediction.reason
        response.ttft_ms, response.tpot_ms = prediction.ttft * 1e3, prediction.tpot * 1e3
        response.completion_ms = prediction.completion * 1e3
        return response

    def _engine_message(self, server: Server) -> msg.EngineStatus:
        return conversions.engine_message(server.engine.info,
                                          self._parameters.settings.server.max_batch)

    def _state_message(self, snapshot: Snapshot) -> msg.SchedulerState:
        return conversions.state_message(snapshot, self._parameters.settings.server.max_queued,
                                         self._node.get_clock().now().to_msg())
