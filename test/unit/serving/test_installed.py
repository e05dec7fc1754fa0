# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The files beside the package are found in a checkout and below any prefix."""

from pathlib import Path
import shutil
import subprocess
import sys

from slice_ros import installed


def test_the_checkout_is_found():
    assert (installed.share() / 'config' / 'slice.yaml').is_file()
    assert installed.version()[0].isdigit()


def test_below_a_prefix_it_is_share_slice_ros(tmp_path):
    package = tmp_path / 'lib' / 'python3' / 'site-packages' / 'slice_ros'
    share = tmp_path / 'share' / 'slice_ros'
    (share / 'config').mkdir(parents=True)
    package.mkdir(parents=True)
    (share / 'package.xml').write_text('<package><version>4.5.6</version></package>')
    shutil.copy(Path(installed.__file__), package)
    said = subprocess.run(
        [sys.executable, '-S', '-c', 'import installed; print(installed.version())'],
        cwd=package, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == '4.5.6', said.stderr
