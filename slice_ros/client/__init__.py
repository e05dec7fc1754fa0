# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The client library: send requests to the slice node from a node of your own.

In a coroutine of the executor that spins the node (a callback, ``executor.create_task``)::

    client = SliceClient(node)
    stream = client.generate('How do I get to the lab?', 'navigation', max_tokens=60)
    async for chunk in stream:
        print(chunk.text, end='')
    print(stream.result.report.ttft_ms)

    answer = await client.ask('A box is 0.4 m ahead.', 'control', choice=['STOP', 'GO'])

    answers = await client.generate_several('Name a room.', 3, sampling={'temperature': 1.0})

    answer = await client.run_tools('Turn left.', [turn, drive], 'control')

In callbacks: ``client.ask_future(...).add_done_callback(...)``. The coroutines also work in
asyncio while an executor spins the node in another thread, and in a plain thread by
``asyncio.run(client.ask(...))``. Nothing here blocks the executor.

Planners depend on the names in ``__all__``: extend them, never rename or remove one. Everything
else may change: `slice_client` (`SliceClient`), `stream` (what it returns), `answer` (the text on
its way to the reader), `function_tools` (functions that the model may call), `goals` (Python
values to the goal message), `token_logprobs` (those of an answer from their message),
`generate_client` (sends the goals; with `presence` and `callbacks`), `exceptions`, `run` (the
process of a node), and `watch` (what goes on in the node, for programs that show it; with
`strips`). The library needs rclpy and the interfaces, pydantic for functions as tools, and never
imports the engine.
"""

from slice_ros.client.answer import Answer, Chunk, ToolCall
from slice_ros.client.exceptions import (
    Cancelled, DeadlineMissed, EngineFailure, FormatIncomplete, Infeasible, InvalidRequest,
    QueueFull, SessionBusy, SliceError, Timeout, Unavailable)
from slice_ros.client.run import run_node
from slice_ros.client.slice_client import SliceClient
from slice_ros.client.stream import Stream, Streams
from slice_ros.client.token_logprobs import TokenLogprob

__all__ = ['Answer', 'Cancelled', 'Chunk', 'DeadlineMissed', 'EngineFailure', 'FormatIncomplete',
           'Infeasible', 'InvalidRequest', 'QueueFull', 'SessionBusy', 'SliceClient', 'SliceError',
           'Stream', 'Streams', 'Timeout', 'TokenLogprob', 'ToolCall', 'Unavailable', 'run_node']
