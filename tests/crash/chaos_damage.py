"""Damage to the records of a session that was killed together with its guardian, and what reap makes of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_nixproc._cli import main
from tests.crash.chaos_scene import USER, Scene, command, frozen, named, reveals_us
from tests.crash.storm import RUN_SECONDS, wait

WAITING: Final = "import time\n\n\ndef test_it(nixproc_system):\n    time.sleep(600)\n"
REAP_SECONDS: Final = 60
ROUNDS_OF_NOISE: Final = 40


@dataclass(frozen=True)
class Damage:
    """One way to damage one of the records."""

    name: str
    record: str
    """The file, with ``{root}``, ``{name}`` and ``{leases}`` for the deployment."""

    change: Callable[[Path, int, random.Random], object]
    """Damages the file, at a byte if that matters."""

    rounds: Callable[[int], int] = lambda _: 1
    """How often to try, given the size of the file; the byte is the number of the round."""


def cut(path: Path, byte: int, _: random.Random) -> None:
    """Cut a file off."""
    os.truncate(path, byte)


def noise(path: Path, _: int, chance: random.Random) -> None:
    """Fill a file with noise, or a part of it."""
    text = bytearray(path.read_bytes())
    begin = chance.randrange(len(text))
    end = chance.randrange(begin, len(text)) + 1
    text[begin:end] = chance.randbytes(chance.choice((1, end - begin)))
    path.write_bytes(text)


def later(path: Path, _: int, __: random.Random) -> None:
    """Write what a later version might: other events, facts of other types, and none of those that we read."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{"version": 99, "event": f"{line.get('event', '')}2", "facts": [line]} for line in lines]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in changed))


def other_types(path: Path, _: int, chance: random.Random) -> None:
    """Give each value another type."""
    values: tuple[object, ...] = ("x", 7, None, [], {}, True, -1.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [
        {key: chance.choice(values) if chance.random() < 0.4 else value for key, value in one.items()} for one in lines
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in changed))


def fifo(path: Path, _: int, __: random.Random) -> None:
    """Put a FIFO in the place of a file: who opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def directory(path: Path, _: int, __: random.Random) -> None:
    """Put a directory in the place of a file."""
    path.unlink()
    path.mkdir()


def link(path: Path, _: int, __: random.Random) -> None:
    """Put a link to something endless in the place of a file."""
    path.unlink()
    path.symlink_to("/dev/zero")


def foreign(path: Path, _: int, __: random.Random) -> None:
    """Give a file to another user."""
    os.chown(path, USER, USER)


def removed(path: Path, _: int, __: random.Random) -> None:
    """Remove a file."""
    path.unlink()


RECORDS: Final = {
    "journal": "{root}/journal",
    "lease": "{leases}/{name}.json",
    "leases of ports": "{leases}/ports.json",
}


def damages() -> Iterator[Damage]:
    """Yield all kinds of damage."""
    for name, record in RECORDS.items():
        yield Damage(f"{name} cut off at a byte", record, cut, lambda size: size)
        yield Damage(f"{name} with noise", record, noise, lambda _: ROUNDS_OF_NOISE)
        yield Damage(f"{name} with values of other types", record, other_types, lambda _: ROUNDS_OF_NOISE)
        yield Damage(f"{name} of a later version", record, later)
        yield Damage(f"{name} that is a FIFO", record, fifo)
        yield Damage(f"{name} that is a directory", record, directory)
        yield Damage(f"{name} that is a link to /dev/zero", record, link)
        yield Damage(f"{name} of another user", record, foreign)
        yield Damage(f"{name} removed", record, removed)


DAMAGES: Final = tuple(damages())


def die(scene: Scene) -> bool:
    """Run a session until its test waits, and kill it together with its guardian."""
    one = scene.session
    scene.write("test_0.py", WAITING)
    scene.begin()
    wait(lambda: scene.phase() == "test" or one.is_over(), RUN_SECONDS)
    if one.is_over():
        return False
    with frozen(scene, one.pid):
        for pid in (*scene.pids("guardian"), one.pid):
            scene.asleep.add(pid)
            os.kill(pid, signal.SIGKILL)
    return wait(one.is_over, RUN_SECONDS)


def run_damage(scene: Scene, damage: Damage) -> tuple[int, dict[str, list[str]]]:
    """Damage records of a dead session in one way after the other; return how often, and what went wrong."""
    root, kept = scene.root(), f"{scene.place}/kept"
    os.mkdir(kept)
    command("cp", "-a", scene.session.state_root, f"{kept}/s")
    command("cp", "-a", scene.leases, f"{kept}/leases")
    path = Path(damage.record.format(root=root, name=os.path.basename(root), leases=scene.leases))
    every = range(damage.rounds(path.stat().st_size))
    rounds = sorted(scene.chance.sample(every, min(scene.moments, len(every)))) if scene.moments else every
    wrong: dict[str, list[str]] = {}
    for number in rounds:
        damage.change(path, number, scene.chance)
        found = look(scene, *forked_reap())
        if found:
            wrong.setdefault("after damage", []).append(f"round {number}: {found}")
        restore(scene, kept)
    status, said = forked_reap()
    if (left := scene.left()) or status:
        wrong["after reap of what is sound"] = [said, json.dumps(left)]
    return len(rounds), wrong


def restore(scene: Scene, kept: str) -> None:
    """Lay the records as they were."""
    shutil.rmtree(scene.session.state_root, ignore_errors=True)
    shutil.rmtree(scene.leases, ignore_errors=True)
    command("cp", "-a", f"{kept}/s", scene.session.state_root)
    os.makedirs(os.path.dirname(scene.leases), mode=0o700, exist_ok=True)
    command("cp", "-a", f"{kept}/leases", scene.leases)


def look(scene: Scene, status: int, said: str) -> str:
    """Return what is wrong with what reap did and said, or ""."""
    if reveals_us(said) or status > 4:
        return f"status {status}: {said}"
    wait(lambda: not scene.session.processes(), 2)
    left = scene.left()
    hidden = [trace for kind, traces in left.items() for trace in traces if not named(kind, trace, said)]
    return f"left without a word: {hidden}; said: {said}" if hidden else ""


def forked_reap() -> tuple[int, str]:
    """Run ``nixproc reap`` in a child of this process, which has all modules already; return status and output."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.closerange(3, 256)
        signal.alarm(REAP_SECONDS)
        status = 70
        try:
            status = main(["reap"])
        except BaseException:  # noqa: BLE001 - it is what is looked for
            traceback.print_exc()
        finally:
            flush_and_exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, ended = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(ended)
    return (99 if code < 0 else code), said


def flush_and_exit(status: int) -> None:
    """End a forked child without anything of its parent's."""
    import sys

    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
