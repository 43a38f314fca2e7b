"""The sessions that these tests run are forked: they are what an interpreter of their own would have run."""

from __future__ import annotations

import os
import sys

import pytest

from tests.forked_sessions import SessionForker

LOOK = """
import os, signal, sys, tempfile, threading

def test_look(request):
    print()
    print("seen", sys.argv[1:], os.getcwd(), tempfile.gettempdir(), __name__, os.umask(0o22))
    print("seen", [place for place in sys.path if place], sorted(os.environ.items()))
    print("seen", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])
    print("seen", [thread.name for thread in threading.enumerate()], request.config.invocation_params.args)
    print("seen", sorted(str(plugin) for plugin, _ in request.config.pluginmanager.list_plugin_distinfo()))
    print("seen", sorted(os.listdir("/proc/self/fd")), os.read(0, 1), os.isatty(1))
    print("child of", os.getppid())
    print("wrong", file=sys.stderr)
    assert request.config.getoption("nixproc_manager") == "none"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_forked_session_is_like_an_executed_one(
    pytester: pytest.Pytester, forker: SessionForker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked session sees and says what an executed one does, also of its plugins, and ends with the same status."""
    pytester.makepyfile(test_it=LOOK)
    monkeypatch.setenv("PYTHONPATH", "/nowhere", prepend=os.pathsep)
    arguments = ("-s", "-p", "no:cacheprovider", f"--basetemp={pytester.path}/kept", "-W", "error")
    forked = pytester.run(sys.executable, "-mpytest", *arguments)
    executed = pytester.run(sys.executable, "-m", "pytest", *arguments)
    seen = [[line for line in result.outlines if line.startswith("seen")] for result in (forked, executed)]
    forked.stdout.fnmatch_lines([f"child of {forker.process.pid}"])
    assert len(seen[0]) == 6
    assert seen[0] == seen[1]
    assert (forked.ret, forked.errlines, forked.parseoutcomes()) == (executed.ret, ["wrong"], executed.parseoutcomes())


def test_status_of_a_session(pytester: pytest.Pytester) -> None:
    """A session that is killed has its signal as its status, and one that takes too long is killed."""
    pytester.makepyfile(test_killed="import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGKILL)")
    assert pytester.runpytest_subprocess("test_killed.py").ret == -9
    pytester.makepyfile(test_long="import signal\ndef test_it(): signal.pause()")
    with pytest.raises(pytester.TimeoutExpired):
        pytester.runpytest_subprocess("test_long.py", timeout=2)
