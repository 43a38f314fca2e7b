"""Attacks of another user of the machine, a real one, on root's deployments: before they are made, and later."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc._cli import main
from pytest_nixproc._persistence.directory import DeploymentDirectory, default_state_root
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc.errors import DeploymentError, NixprocError
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance import Bench, Fixtures, one
from tests.open_interpreter import USER, as_user, open_interpreter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have another user attack")

PLANT: Final = """
mkdir -p "$1/it" && cd "$1/it" && mkdir profile var || exit
printf '{"event": "machine", "machine": "host", "directory": "%s"}\\n' "$PWD" > journal
echo precious > var/precious
"""
"""Makes what looks like a deployment."""

SWAP: Final = """
while :; do
    ln -s "$2" "$1" 2> /dev/null; rm -f "$1"
    mkdir "$1" 2> /dev/null; rmdir "$1"
done 2> /dev/null
"""
"""Puts a link in a place, and then a directory, again and again."""

CONNECT: Final = """
import os, socket, sys
for directory in {os.path.dirname(path) for path in sys.argv[1:]}:
    if os.access(directory, os.R_OK):
        print("can list", directory)
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(path)
        except PermissionError:
            print("refused")
        else:
            print("connected to", path)
"""
ROUNDS: Final = 200


def attack(text: str, *words: str) -> None:
    """Have the other user run shell text, which has to succeed."""
    done = as_user(["/bin/sh", "-ec", text, "sh", *words], directory=Path("/"), environment={"PATH": os.defpath})
    assert done.returncode == 0, done.stdout


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory where everybody can make things, and nobody rename another's, like the usual temporary one."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        Path(directory).chmod(0o1777)
        yield Path(directory)


def test_planted_deployment(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment that another user has made is neither ended nor taken for root's own by a lease; all of it stays."""
    attack(PLANT, f"{place}/theirs")
    root = f"{place}/theirs/it"
    leases = Leases(f"{place}/own/leases")
    leases.save(DeploymentLease(root, (ProcessIdentity(1, "gone", "gone"),)))
    assert main(["end", root]) == 1
    assert f"{root} belongs to user {USER}" in capsys.readouterr().err
    os.chown(root, 0, 0)
    os.chown(f"{root}/journal", 0, 0)
    assert main(["end", root]) == 1
    assert f"nothing in {root} is believed: {place}/theirs belongs to user {USER}" in capsys.readouterr().err
    main(["_recover", f"--leases={leases.directory}", root])
    assert Path(root, "var", "precious").read_text() == "precious\n"
    assert leases.lease_of(root) is not None


def test_planted_lease(place: Path) -> None:
    """A directory of leases that another user has made is refused, wherever root is led by it."""
    attack('mkdir -p "$1/leases"; echo "{}" > "$1/leases/a.json"', f"{place}/nixproc-0")
    with pytest.raises(NixprocError, match=f"cannot be trusted with leases: it belongs to user {USER}"):
        Leases(f"{place}/nixproc-0/leases").all()


def test_state_root_below_their_directory(place: Path) -> None:
    """Nothing is made below another user's directory, and the error names it and the default."""
    attack('mkdir -m 755 "$1"', f"{place}/theirs")
    with pytest.raises(DeploymentError, match=f"{place}/theirs belongs to user {USER}") as caught:
        DeploymentDirectory.allocate(f"{place}/theirs/root").make()
    assert default_state_root() in caught.value.remedy
    assert os.listdir(place / "theirs") == []


def test_link_and_race_for_the_usual_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever another user puts a link or directory in the place of root's usual one, nothing is made through it."""
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    attack('mkdir -m 777 "$1"', f"{place}/elsewhere")
    words = ("/bin/sh", "-c", SWAP, "sh", default_state_root(), f"{place}/elsewhere")
    refused = 0
    with subprocess.Popen(words, user=USER, group=USER, extra_groups=[], env={"PATH": os.defpath}) as attacker:
        try:
            for _ in range(ROUNDS):
                directory = DeploymentDirectory.allocate(None)
                try:
                    directory.make()
                except DeploymentError:
                    refused += 1
                    continue
                assert os.lstat(default_state_root()).st_uid == os.lstat(directory.root).st_uid == 0
                os.rmdir(directory.root)
                directory.leave()
        finally:
            attacker.kill()
    assert os.listdir(place / "elsewhere") == []
    assert refused, "the attacker was never quick enough"


class TestSockets(Fixtures):
    """For a manager with a socket."""

    manager = "supervisord"

    def test_others_are_refused(self, bench: Bench) -> None:
        """Another user who knows the paths of sockets connects to none of them, and lists no directory around them."""
        python = open_interpreter()
        if python is None:
            pytest.skip("there is no interpreter for others")
        Path(bench.directory).chmod(0o711)
        Path(bench.state_root).mkdir(mode=0o711)
        process = create_managed_process(name="it", foreground_process="/bin/sleep", args=["1000"])
        with bench.deploy(one(lambda _: Instance(process))) as system:
            found = [str(path) for path in Path(system.root).rglob("*") if path.is_socket()]
            assert found
            words: list[str | Path] = [python, "-c", CONNECT, *found]
            assert as_user(words, directory=Path("/"), environment={}).stdout == "refused\n" * len(found)
