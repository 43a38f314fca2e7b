"""What a program needs of this machine's software, with real files: links, scripts, binaries and prefixes."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_nixproc.machines import software
from pytest_nixproc.machines.software import ESSENTIAL, Software, chain, loader_of, loads, outermost, place_of

SHELL = os.path.realpath("/bin/sh")


def program(path: Path, head: str = "#!/bin/sh\n") -> str:
    """Make an executable file, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head)
    path.chmod(0o755)
    return str(path)


def found(paths: Sequence[str], place: Path) -> set[str]:
    """Return what is needed below a directory."""
    return {path for path in Software().needed_by(paths) if path.startswith(f"{place}/")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory without links in its path."""
    return tmp_path.resolve()


def test_essential_is_always_there() -> None:
    """The system's own software is needed by everything, as far as it exists; by nothing else at all."""
    needed = Software().needed_by([])
    assert needed == outermost(path for path in ESSENTIAL if os.path.exists(path))
    assert "/usr" in needed


def test_program_needs_its_directory(place: Path) -> None:
    """A program comes with what lies beside it."""
    assert found([program(place / "app" / "run")], place) == {f"{place}/app"}


@pytest.mark.parametrize("sign", ["lib", "lib64", "libexec", "share", "pyvenv.cfg"])
@pytest.mark.parametrize("part", ["bin", "sbin", "libexec"])
def test_program_of_a_prefix_needs_the_prefix(place: Path, part: str, sign: str) -> None:
    """A program in a bin directory that has libraries or data beside it comes with them."""
    run = program(place / "app" / part / "run")
    (place / "app" / sign).mkdir(exist_ok=True)
    assert found([run], place) == {f"{place}/app"}


def test_bin_alone_is_no_prefix(place: Path) -> None:
    """Without libraries or data beside it, a bin directory is needed alone."""
    run = program(place / "app" / "bin" / "run")
    (place / "app" / "secrets").mkdir()
    assert found([run], place) == {f"{place}/app/bin"}


def test_every_link_of_a_chain_is_needed(place: Path) -> None:
    """Each directory that a chain of links leads through is there, the last one too."""
    run = program(place / "c" / "run")
    for here, target in (("a", "../b/run"), ("b", f"{place}/c/run")):
        (place / here).mkdir()
        (place / here / "run").symlink_to(target)
    assert list(chain(f"{place}/a/run")) == [f"{place}/a/run", f"{place}/b/run", run, run]
    assert found([f"{place}/a/run"], place) == {f"{place}/{name}" for name in "abc"}


def test_linked_directory_is_needed_under_both_names(place: Path) -> None:
    """A program below a link to a directory is there by the name that was used, and by its own."""
    program(place / "v1" / "run")
    (place / "current").symlink_to("v1")
    assert found([f"{place}/current/run"], place) == {f"{place}/current", f"{place}/v1"}


def test_place_that_only_seems_to_be_there(place: Path) -> None:
    """A relative link below a linked directory: what it would mean without that link is not there, nor needed."""
    run = program(place / "v1" / "share" / "run")
    (place / "v1" / "programs").mkdir()
    (place / "v1" / "programs" / "run").symlink_to("../share/run")
    (place / "programs").symlink_to("v1/programs")
    needed = found([f"{place}/programs/run"], place)
    assert {os.path.dirname(run), f"{place}/programs"} <= needed
    assert [path for path in needed if not os.path.exists(path)] == []


def test_links_that_lead_nowhere(place: Path) -> None:
    """Links in a circle, dangling ones and absent files need nothing."""
    (place / "app").mkdir()
    (place / "app" / "one").symlink_to("two")
    (place / "app" / "two").symlink_to("one")
    (place / "app" / "dangling").symlink_to("nowhere")
    assert found([f"{place}/app/{name}" for name in ("one", "two", "dangling", "absent")], place) == set()
    assert len(list(chain(f"{place}/app/one"))) <= software.LINKS_IN_A_CHAIN + 2


def test_directory_is_needed_itself(place: Path) -> None:
    """A directory that a model names is needed with all that is in it, and nothing beside it."""
    (place / "data" / "deep").mkdir(parents=True)
    assert found([f"{place}/data/deep/"], place) == {f"{place}/data/deep"}


@pytest.mark.parametrize(("line", "words"), [("{0}", 1), (" {0} -e", 1), ("{0} {1}", 2), ("{0} name", 1)])
def test_interpreter_of_a_script_is_needed(place: Path, line: str, words: int) -> None:
    """A script needs its interpreter, and a file in the interpreter's argument."""
    interpreters = [program(place / name / "interpreter", "") for name in ("first", "second")]
    script = program(place / "app" / "script", f"#!{line.format(*interpreters)}\nexit\n")
    assert list(loads(script)) == interpreters[:words]
    assert found([script], place) == {f"{place}/app", *(os.path.dirname(path) for path in interpreters[:words])}


def test_interpreter_that_env_looks_up(place: Path) -> None:
    """``#!/usr/bin/env x`` needs env; where x is, PATH says when the script runs."""
    assert list(loads(program(place / "script", "#!/usr/bin/env x\n"))) == ["/usr/bin/env"]


def test_interpreter_of_an_interpreter_is_needed(place: Path) -> None:
    """What a script's interpreter needs itself is needed by the script."""
    last = program(place / "last" / "run", "")
    middle = program(place / "middle" / "run", f"#!{last}\n")
    script = program(place / "app" / "run", f"#!{middle}\n")
    assert found([script], place) == {f"{place}/{name}" for name in ("app", "middle", "last")}


def test_scripts_that_interpret_each_other(place: Path) -> None:
    """A circle of interpreters ends."""
    paths = [program(place / name, f"#!{place}/{other}\n") for name, other in (("a/x", "b/x"), ("b/x", "a/x"))]
    assert found(paths[:1], place) == {f"{place}/a", f"{place}/b"}


def test_binary_needs_its_loader_and_libraries() -> None:
    """A binary's needs are those that its own loader lists; each is a file of this machine."""
    needed = list(loads(SHELL))
    assert os.path.basename(needed[0]).startswith("ld")
    assert any(os.path.basename(path).startswith("libc.") for path in needed)
    assert [path for path in needed if not os.path.isfile(path)] == []


def test_library_of_a_binary_is_needed(place: Path) -> None:
    """A library that only the binary's own search path leads to is needed where it is."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed")
    for folder in ("libraries", "app"):
        (place / folder).mkdir()
    (place / "thing.c").write_text("int thing(void) { return 0; }\n")
    (place / "main.c").write_text("int thing(void);\nint main(void) { return thing(); }\n")
    library, run = f"{place}/libraries/libthing.so", f"{place}/app/run"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, f"{place}/thing.c"], check=True)
    subprocess.run([compiler, "-o", run, f"{place}/main.c", library, f"-Wl,-rpath,{place}/libraries"], check=True)
    assert found([run], place) == {f"{place}/app", f"{place}/libraries"}


def binary(bits: int, order: str, gap: int) -> bytes:
    """Return the headers of a binary whose interpreter stands behind a gap, as its last program header says."""
    is_wide = bits == 64
    header, offset = (64, 64 + 2 * 56 + gap) if is_wide else (52, 52 + 2 * 32 + gap)
    name = b"/store/ld.so\0"
    ident = b"\x7fELF" + bytes([2 if is_wide else 1, 1 if order == "<" else 2]) + bytes(10)
    rest = struct.pack(f"{order}HHI" + ("QQQ" if is_wide else "III"), 2, 62, 1, 0, header, 0)
    rest += struct.pack(f"{order}IHHH", 0, header, 56 if is_wide else 32, 2)
    entry = "IIQQQQQQ" if is_wide else "IIIIIIII"
    place = (0, offset, 0, 0, len(name), 0, 0) if is_wide else (offset, 0, 0, len(name), 0, 0, 0)
    headers = struct.pack(order + entry, *([6] + [0] * 7)) + struct.pack(order + entry, 3, *place)
    return (ident + rest).ljust(header, b"\0") + headers + bytes(gap) + name


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("gap", [0, 100_000])
def test_loader_may_stand_anywhere(place: Path, bits: int, order: str, gap: int) -> None:
    """The loader of a binary is found by its program headers, in both sizes and byte orders; a damaged one has none."""
    whole = binary(bits, order, gap)
    path = place / "run"
    path.write_bytes(whole)
    assert loader_of(str(path)) == "/store/ld.so"
    for length in (4, 5, 40, 70, 110):
        path.write_bytes(whole[:length])
        assert loader_of(str(path)) == ""


@pytest.mark.parametrize("content", [b"\x7fELF", b"\x7fELF/nowhere/ld-linux.so.2\0", b"#!\n", b"#!", b"", b"\0"])
def test_broken_program_loads_nothing_that_is_there(place: Path, content: bytes) -> None:
    """A program that cannot run is there, and its needs are nothing."""
    path = program(place / "app" / "broken", "")
    Path(path).write_bytes(content)
    assert found([path], place) == {f"{place}/app"}


def test_only_executable_files_are_read(place: Path) -> None:
    """A file that is not executable, a directory, a FIFO and an absent file load nothing, and are not opened."""
    (place / "text").write_text("#!/bin/sh\n")
    os.mkfifo(place / "fifo", 0o755)
    assert [list(loads(f"{place}{name}")) for name in ("/text", "", "/fifo", "/absent")] == [[]] * 4
    assert list(loads(program(place / "run"))) == ["/bin/sh"]


def test_file_that_cannot_be_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that may be executed and not read is there, and its needs are unknown."""
    run = program(place / "app" / "run", f"#!{place}/other/interpreter\n")
    program(place / "other" / "interpreter", "")
    (place / "app" / "run").chmod(0o111)
    # Root may read everything, so that the system's answer is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == run and mode & os.R_OK))
    assert found([run], place) == {f"{place}/app"}


@pytest.mark.parametrize("path", ["/proc/self/exe", "/proc", "/sys/kernel", "/dev/null", "/dev"])
def test_what_the_kernel_provides_is_nobodys_software(path: str) -> None:
    """Devices and the kernel's own files are not taken from this machine."""
    assert place_of(path) == ""


@pytest.mark.parametrize(
    "path", ["/etc/app.conf", "/opt/run", "/run", "/tmp/run", "/root/run", "/home/x/run", "/run.sh", "/dev/shm/run"]
)
def test_only_the_file_of_a_place_that_holds_everything(path: str) -> None:
    """Of what lies directly in a top level of the system, or in a home, only the file itself is needed."""
    assert place_of(path) == ("" if os.path.isdir(path) else path)


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "/opt", "/root", "/tmp", "/var/lib", "/dev/shm"])
def test_place_that_holds_everything_is_not_needed_itself(path: str) -> None:
    """A whole top level of the system is not made available, even when a model names it."""
    assert place_of(path) == ""


def test_home_that_is_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's home is one, wherever it is and by whichever name: of it, the program's files alone are needed."""
    (place / "real").mkdir()
    (place / "home").symlink_to("real")
    monkeypatch.setenv("HOME", f"{place}/home")
    run = program(place / "real" / "run")
    deep = program(place / "real" / "bin" / "run")
    (place / "real" / "share").mkdir()
    (place / "real" / ".ssh").mkdir()
    assert found([f"{place}/home/run"], place) == {f"{place}/home/run", run}
    assert found([deep], place) == {f"{place}/real/bin"}
    assert found([f"{place}/home", f"{place}/real"], place) == set()


def test_programs_are_looked_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program loads is remembered: the next deployment does not ask its loader again."""
    run = program(place / "app" / "run")
    known = Software()
    first = known.needed_by([run])
    monkeypatch.setattr(software, "loads", lambda _: pytest.fail("it was looked at again"))
    assert known.needed_by([run]) == first


@pytest.mark.parametrize(
    ("places", "kept"),
    [
        ((), ()),
        (("/a", "/a/b", "/a/b/c"), ("/a",)),
        (("/a/b", "/a-b", "/a.b", "/ab"), ("/a-b", "/a.b", "/a/b", "/ab")),
        (("/a-b/c", "/a/c", "/a-b", "/a"), ("/a", "/a-b")),
    ],
)
def test_outermost(places: tuple[str, ...], kept: tuple[str, ...]) -> None:
    """What lies in another place is left out; a name that only begins like another is none of its parts."""
    assert outermost(places) == kept
