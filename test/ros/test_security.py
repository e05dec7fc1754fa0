# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The policies of config/security: of the schema of sros2, and exactly what the nodes do."""

from pathlib import Path
import re
import xml.etree.ElementTree as ElementTree

from conftest import CLASSES, wait_until
import pytest

FOLDER = Path(__file__).parents[2] / 'config' / 'security'
POLICIES = sorted(FOLDER.glob('*.policy.xml'))
LISTS = {'topics': ('topic', {'publish', 'subscribe'}),
         'services': ('service', {'reply', 'request'}), 'actions': ('action', {'call', 'execute'})}
OF_EVERY_NODE = {'/rosout', '/parameter_events'}


def allowed(name):
    """Return {'publish': names, 'subscribe': names ...} of a policy, with names resolved."""
    profile, = ElementTree.parse(FOLDER / f'{name}.policy.xml').iter('profile')
    prefix = f'{profile.get("ns")}{profile.get("node")}'
    found = {way: set() for _, ways in LISTS.values() for way in ways}
    for group in profile:
        way, = group.attrib
        found[way] |= {re.sub('^~', prefix, each.text) for each in group}
    return found


def used(observer, name):
    """Return what a node does, as the ROS graph knows it, in the form of `allowed`."""
    def names(what):
        found = getattr(observer, f'get_{what}_names_and_types_by_node')(name, '/')
        return {re.sub('/callers/client_.*', '/callers/*', each) for each, _ in found}
    wait_until(lambda: OF_EVERY_NODE <= names('publisher'))
    actions = {'call': names('client'), 'execute': names('service')}
    for way, services in actions.items():
        actions[way] = {each.partition('/_action/')[0] for each in services
                        if '/_action/' in each}
    return {way: {each for each in found if '/_action/' not in each}
            for way, found in (('publish', names('publisher')), ('reply', names('service')),
                               ('subscribe', names('subscriber')),
                               ('request', names('client')))} | actions


@pytest.mark.parametrize('path', POLICIES, ids=lambda path: path.name)
def test_a_policy_is_of_the_schema_of_sros2(path):
    """Version 0.2.0 of sros2/policy/schemas/policy.xsd, element by element."""
    policy = ElementTree.parse(path).getroot()
    assert (policy.tag, policy.attrib) == ('policy', {'version': '0.2.0'})
    enclaves, = policy
    assert enclaves.tag == 'enclaves' and not enclaves.attrib and len(enclaves)
    for enclave in enclaves:
        assert enclave.tag == 'enclave' and set(enclave.attrib) == {'path'}
        assert enclave.get('path').startswith('/')
        profiles, = enclave
        assert profiles.tag == 'profiles' and not profiles.attrib and len(profiles)
        for profile in profiles:
            assert profile.tag == 'profile' and set(profile.attrib) == {'ns', 'node'}
            for group in profile:
                item, ways = LISTS[group.tag]
                assert len(group) and set(group.attrib) < ways
                assert set(group.attrib.values()) == {'ALLOW'}
                assert [each.tag for each in group] == [item] * len(group)
                texts = [each.text for each in group]
                assert all(re.fullmatch(r'(~?/[a-z_]+)(/[a-z_]+)*(/\*)?', text) for text in texts)
                assert len(texts) == len(set(texts))


def test_the_policy_of_the_node_allows_what_it_does_and_no_more(node, caller):
    def ways():
        found = used(caller, 'slice')
        # The first with use_sim_time only, the second while there are clients.
        found['subscribe'] |= {'/clock', '/slice/callers/*'}
        return found
    wait_until(lambda: set(allowed('slice')['reply']) <= ways()['reply'])   # all is discovered
    assert ways() == allowed('slice')


def test_the_policy_of_a_planner_allows_the_client_and_no_control_of_the_node(
        node, caller, client):
    ways, graph = allowed('planner'), used(caller, 'planner')
    for way, names in graph.items():
        assert names <= ways[way], way
    assert '/slice/generate' in graph['call']
    requested = {name.rpartition('/')[2] for name in ways['request']}
    assert requested == {'check_admission', 'embed', 'generate_text', 'get_status'}
    prompts = {f'/slice/{name}/prompt' for name in CLASSES}
    assert ways['publish'] - OF_EVERY_NODE == prompts | {'/slice/callers/*'}
