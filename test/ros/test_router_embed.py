# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Embeddings through the router: from the first node that computes them, whatever happens."""

from conftest import Caller, get, Spinning, wait_until
from fake_slice import FakeSlice
import pytest
from rclpy.parameter import Parameter
from slice_ros import srv
from slice_ros.errors import ErrorCode
from slice_ros.ros.qos import SERVICES
from slice_ros.router.link import MOST_EMBEDDING
from slice_ros.router.router_node import RouterNode

GONE_S = 0.5     # without an answer, a node counts as gone
TEXTS = ['a door', 'a lift shaft']


@pytest.fixture(scope='module')
def nodes(ros):
    """The fakes (near, far), the router and a client of its ~/embed."""
    near, far = FakeSlice('first'), FakeSlice('second')
    router = RouterNode(parameter_overrides=[
        Parameter(name, value=value) for name, value in (
            ('nodes', ['/first/slice', '/second/slice']), ('answer_within_s', GONE_S),
            ('ping_s', 0.1))])
    caller = Caller('/slice_router')
    embed = caller.create_client(srv.Embed, '/slice_router/embed', qos_profile=SERVICES)
    spinning = [Spinning(near, far), Spinning(router), Spinning(caller)]
    assert embed.wait_for_service(20)
    yield near, far, router, embed
    router.close()
    for each in reversed(spinning):
        each.close()
    for each in (caller, router, near, far):
        each.destroy_node()


@pytest.fixture
def serving(nodes):
    near, far, router, embed = nodes
    near.reset()
    far.reset()
    wait_until(lambda: all(link.embeds for link in router.forwarding.links.values()))
    return near, far, router, lambda: embed.call_async(srv.Embed.Request(texts=TEXTS))


def test_the_first_node_answers_and_names_its_model(serving):
    near, far, _, embed = serving
    answer = get(embed())
    assert answer.error_code == 0 and answer.model == 'first'
    assert [e.values[0] for e in answer.embeddings] == [len(text) for text in TEXTS]
    assert (near.embedding, far.embedding) == (1, 0)


@pytest.mark.parametrize('code', [ErrorCode.NOT_READY, ErrorCode.QUEUE_FULL])
def test_another_one_answers_where_the_first_cannot(serving, code):
    near, far, _, embed = serving
    near.way = int(code)
    assert get(embed()).model == 'second'
    far.way = int(code)
    answer = get(embed())
    assert answer.error_code == code and answer.error_msg == 'refused'
    near.way = int(ErrorCode.INVALID_REQUEST)   # another one would say the same
    assert get(embed()).error_code == ErrorCode.INVALID_REQUEST
    assert far.embedding == 2


def test_a_node_whose_model_makes_none_is_left_out(serving):
    near, far, router, embed = serving
    near.embedding_size = 0
    wait_until(lambda: not router.forwarding.links['/first/slice'].embeds)
    assert get(embed()).model == 'second' and near.embedding == 0


def test_a_node_that_dies_while_it_computes_is_left(serving):
    near, far, router, embed = serving
    near.way = 'silent'
    future = embed()
    wait_until(lambda: near.embedding == 1)
    link = router.forwarding.links['/first/slice']
    assert link.embedding == 1
    near.mute = True
    assert get(future, 20).model == 'second'
    assert link.embedding == 0
    far.mute = True
    wait_until(lambda: not any(each.embeds for each in router.forwarding.links.values()))
    answer = get(embed())
    assert answer.error_code == ErrorCode.NOT_READY and 'no node computes' in answer.error_msg


def test_long_texts_may_take_longer_than_a_small_call_and_their_number_is_bounded(serving):
    near, _, router, embed = serving
    near.way = 'silent'
    waiting = [embed() for _ in range(MOST_EMBEDDING)]
    wait_until(lambda: near.embedding == MOST_EMBEDDING)
    answer = get(embed())
    assert answer.error_code == ErrorCode.QUEUE_FULL and 'send fewer' in answer.error_msg
    link, pings = router.forwarding.links['/first/slice'], []
    wait_until(lambda: pings.append(link.status) or len({id(each) for each in pings})
               > 2 * GONE_S / .1)   # small calls go on being answered
    assert not link.gone and not any(each.done() for each in waiting)
    near.way = 'serve'
    near.release()
    assert {get(each).model for each in waiting} == {'first'}


def test_calls_end_with_the_router(serving):
    """The last test of this file: it is closed afterwards."""
    near, _, router, embed = serving
    near.way = 'silent'
    future = embed()
    wait_until(lambda: near.embedding == 1)
    assert router.waiting == 1
    router.close()
    answer = get(future)
    assert answer.error_code == ErrorCode.SHUTTING_DOWN and 'the router ends' in answer.error_msg
    wait_until(lambda: router.waiting == 0)
    assert get(embed()).error_code == ErrorCode.SHUTTING_DOWN
