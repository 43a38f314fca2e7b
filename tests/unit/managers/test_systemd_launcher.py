"""The script that starts a systemd of the deployment's own, run as far as a namespace of its own allows anybody to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_nixproc.managers.systemd.launcher import launcher
from pytest_nixproc.values.target import Target

TABLE = """#!/bin/sh
case " $* " in *" -n "*) ;; *) mkdir -p /run/mount ;; esac
exec {mount} "$@"
"""
"""The mount(8) of util-linux 2.41, whatever the installed one does: it makes a directory for its table."""

IN_NAMESPACE = """
set -eu
export LC_ALL=C
mount -n -t tmpfs tmpfs /run
mkdir /run/.hidden /run/lock /run/mount
echo content > /run/file
ln -s lock /run/link
ls -A /run
sh "$1" replace_run
ls -A /run
cat /run/file
readlink /run/link
"""


@pytest.fixture
def mount(tmp_path: Path) -> str:
    """Return a directory in which mount is one that writes a table."""
    real = shutil.which("mount")
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    if real is None or shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("no namespace to mount in")
    (tmp_path / "mount").write_text(TABLE.format(mount=real))
    (tmp_path / "mount").chmod(0o755)
    return str(tmp_path)


def test_run_is_replaced_whatever_mount_makes_in_it(
    mount: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new /run holds what the old one does, and systemd's directory, though mount(8) makes /run/mount by itself."""
    script = tmp_path / "launcher"
    script.write_text(launcher(target))
    monkeypatch.setenv("PATH", mount, prepend=":")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_NAMESPACE, "sh", str(script)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    before = [".hidden", "file", "link", "lock", "mount"]
    assert run.stdout.split() == [*before, *before, "systemd", "content", "lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["launcher", "mount"]
