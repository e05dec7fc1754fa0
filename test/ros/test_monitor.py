# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_monitor as a program of its own: in a terminal, in a pipe, and while the node changes."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

from conftest import wait_until
from rclpy.parameter import Parameter
from slice_ros.ros.node import SliceNode

MONITOR = [sys.executable, '-m', 'slice_ros.cli.monitor']
TRIES = 3   # of 5 s each, in which --once has to discover the node


def once(*arguments):
    return subprocess.run([*MONITOR, '--once', *arguments], capture_output=True, text=True,
                          timeout=60)


def test_one_picture_shows_what_the_node_does(caller):
    never = dict.fromkeys(('ttft_ms', 'tpot_ms', 'deadline_ms'), float('inf'))   # too late
    caller.ask(slo_class='navigation', prompt='What is a wheel?', max_tokens=2, **never)
    for _ in range(TRIES):
        done = once()
        if not done.returncode:
            break
    assert done.returncode == 0, done.stderr
    for text in ('ready', 'policy slice', 'control', 'navigation', 'dialogue', 'SmolLM2', '≤250',
                 '100%', '0 requests'):
        assert text in done.stdout, done.stdout
    assert not done.stderr


def test_tokens_draw_a_strip_and_reports_a_verdict(caller, tmp_path):
    out = tmp_path / 'out'
    with out.open('w') as file:
        monitor = subprocess.Popen(MONITOR, stdout=file, stderr=subprocess.STDOUT)

    def strip_drawn():
        caller.ask(prompt='Tell a long story.', max_tokens=100)
        return any('/100' in line and any(block in line for block in '▂▃▅▆█')
                   for line in out.read_text().splitlines())
    try:
        wait_until(lambda: caller.count_subscribers('/slice/dialogue/tokens') > 1,
                   what='no monitor')
        wait_until(strip_drawn, timeout=90, what='no strip')
        caller.ask(slo_class='control', prompt='Stop or go?', max_tokens=2)
        wait_until(lambda: '+2 ' in out.read_text().rpartition('── ended')[2], what='no verdict')
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(60) == 0
    finally:
        monitor.kill()
    assert 'Traceback' not in out.read_text()


def test_without_a_node_it_reports_so():
    done = once('--node', '/nobody/here')
    assert done.returncode == 1
    assert '/nobody/here' in done.stdout and 'is not there' in done.stdout and not done.stderr


def test_what_cannot_be_a_node_is_refused():
    done = once('--node', 'a b')
    assert done.returncode == 2 and 'a b' in done.stderr and 'Traceback' not in done.stderr
    assert once('--seconds', '-1').returncode == 2


def test_in_a_terminal_it_lives_through_a_resize_and_ends_with_ctrl_c(node):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    monitor = subprocess.Popen(MONITOR, stdin=slave, stdout=slave, stderr=slave,
                               env={**os.environ, 'TERM': 'xterm-256color'})
    os.close(slave)
    os.set_blocking(master, False)
    seen = b''

    def seen_all(*parts):
        nonlocal seen
        try:
            seen += os.read(master, 1 << 20)
        except (BlockingIOError, OSError):
            pass
        return all(part.encode() in seen for part in parts)
    try:
        wait_until(lambda: seen_all('ready', 'control', 'capacity'), what='no picture')
        assert 'refused' not in seen.decode(errors='replace')   # there is no room for it
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', 45, 140, 0, 0))
        wait_until(lambda: seen_all('refused'), what='the picture did not grow')
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', 3, 9, 0, 0))
        time.sleep(.6)
        monitor.send_signal(signal.SIGINT)
        wait_until(lambda: seen_all() and monitor.poll() is not None, what='it did not end')
    finally:
        monitor.kill()
        os.close(master)
    assert monitor.returncode == 0
    assert b'Traceback' not in seen and b'\x1b[?1049l' in seen   # the screen is as it was


def test_it_follows_a_node_that_comes_changes_and_goes(ros, engine, latency, spin, tmp_path):
    out = tmp_path / 'out'
    with out.open('w') as file:
        monitor = subprocess.Popen([*MONITOR, '--node', 'late'], stdout=file,
                                   stderr=subprocess.STDOUT)

    def since(mark, *parts):
        return all(part in out.read_text()[mark:] for part in parts)

    def live(*parts):
        mark = len(out.read_text())
        wait_until(lambda: since(mark, *parts), what=f'no {parts} in the picture')

    def start():
        node = SliceNode('late', parameter_overrides=[Parameter('autostart', value=False)])
        return node, spin(node)

    def end(node, spinning):
        assert node.close()
        spinning.close()
        node.destroy_node()
    try:
        live('is not there')
        node, spinning = start()
        live('unconfigured')
        node.serve(engine, latency)
        live('ready', 'dialogue')
        node.set_parameters([Parameter('slo.classes', value=['control', 'patrol'])])
        live('patrol')
        end(node, spinning)
        live('is not there')
        node, spinning = start()
        live('unconfigured')
        end(node, spinning)
        monitor.send_signal(signal.SIGTERM)
        assert monitor.wait(60) == 0
    finally:
        monitor.kill()
    assert 'Traceback' not in out.read_text()
