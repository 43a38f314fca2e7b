"""Removing directories, with something mounted in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixproc.machines import removal
from pytest_nixproc.machines.package import PACKAGE_ROOT

ENTER = ("unshare", "--mount", "--map-root-user", "--propagation", "private", "/bin/sh", "-ec")

MOUNTED = """
mount $1 "$4"
cd /
"$2" -c 'import sys; sys.path.insert(0, sys.argv[1])
from pytest_nixproc.machines.host import Host
try: Host().files.remove(sys.argv[2])
except Exception as error: print(error)' "$3" "$5"
"""


def removed(options: str, mount_point: Path, path: Path) -> str:
    """Remove a path while something is mounted, in a namespace of its own; return the error."""
    if not shutil.which("unshare") or subprocess.run([*ENTER, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no mount namespaces")
    words = ("sh", options, sys.executable, PACKAGE_ROOT, str(mount_point), str(path))
    return subprocess.run([*ENTER, MOUNTED, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("inner", ["var/lib/data", "a b", "."])
def test_what_is_mounted_is_spared(tmp_path: Path, inner: str) -> None:
    """A directory in which another one of the same disk is mounted stays as it is, and the mount point is named."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("")
    root = tmp_path / "root"
    (root / inner).mkdir(parents=True)
    (root / "journal").write_text("")
    error = removed(f"--bind {tmp_path}/precious", root / inner, root)
    assert error.startswith(f"nothing of {root} was removed: something is mounted on {root / inner}\n")
    assert f"umount {root / inner}, then nixproc reap" in error
    assert (tmp_path / "precious" / "thesis").exists()
    assert (root / "journal").exists()


def test_what_is_mounted_elsewhere_is_no_obstacle(tmp_path: Path) -> None:
    """A mount beside or above what is removed does not keep it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    assert removed("-t tmpfs tmpfs", tmp_path / "root-2", tmp_path / "root") == ""
    assert not (tmp_path / "root").exists()


def test_octal_numbers_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mount points are read as the kernel writes them."""
    monkeypatch.setattr(removal, "HAS_PROC", True)
    monkeypatch.setattr(removal, "read_facts", lambda _: rb"36 35 98:0 /root /a\040b\134\012 rw - ext4 /dev/root rw")
    assert removal.mount_points() == {"/a b\\\n"}
