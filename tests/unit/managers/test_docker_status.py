"""What the docker manager makes of an engine's words, of image archives, and of the ways to an engine."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from docker.errors import APIError, ImageLoadError
from requests.exceptions import ConnectionError as NoConnection

from pytest_nixproc.errors import DeploymentError, NixprocError, Unreachable
from pytest_nixproc.managers.docker import engine
from pytest_nixproc.managers.docker.container import describe_end, exit_status_of, published
from pytest_nixproc.managers.docker.engine import address, cause_of, connect, settings, unavailable_reason
from pytest_nixproc.managers.docker.images import DIRECTORIES, load, packed

TAG = "nixproc-deployment-12345678:latest"

MANIFEST = {"Config": "config.json", "RepoTags": ["theirs:1", "theirs:latest"], "Layers": ["layer.tar"]}

LAYER = os.urandom(40_000)
"""So many bytes that an archive can be cut in the middle of them, and so odd that no packer makes them fewer."""


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, 0), (1, 1), (127, 127), (128, 128), (137, -9), (143, -15), (192, -64), (193, 193), (255, 255)],
)
def test_exit_status(code: int, status: int) -> None:
    """A container's exit code is its program's, unless it stands for a signal that there is."""
    assert exit_status_of({"ExitCode": code}) == status


def ended(**state: object) -> dict[str, Any]:
    """Return what an engine says of a container that has ended."""
    usual = {"Status": "exited", "ExitCode": 1, "OOMKilled": False, "Error": ""}
    return {"State": usual | state, "HostConfig": {"Memory": 4096}}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "exited with status 1"),
        ({"Status": "created", "ExitCode": 127, "Error": "no such file"}, "created with status 127 no such file"),
        ({"OOMKilled": True, "ExitCode": 137}, "killed at its memory limit of 4096 bytes (OOM), status 137"),
    ],
)
def test_end_in_words(state: dict[str, object], text: str) -> None:
    """How a container ended is said with its status; the limit of memory, or the engine's error, with its words."""
    assert describe_end(ended(**state)) == text


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        (None, {}),
        ({}, {}),
        ({"80/tcp": None}, {}),
        ({"80/tcp": []}, {}),
        ({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}, {8080: 80}),
        ({"80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}]}, {8080: 80, 8081: 80}),
        ({"53/udp": [{"HostPort": "53"}], "53/tcp": [{"HostPort": "54"}]}, {54: 53}),
    ],
)
def test_forwarded_ports(ports: object, found: dict[int, int]) -> None:
    """Only TCP ports that lead from the machine into a container are published."""
    assert published({"NetworkSettings": {"Ports": ports}}) == found


@pytest.mark.parametrize("facts", [None, {}, {"NetworkSettings": {}}])
def test_nothing_is_forwarded_to_what_does_not_run(facts: dict[str, Any] | None) -> None:
    """Without a container there are no ports."""
    assert published(facts) == {}


def test_packed_directory(tmp_path: Path) -> None:
    """An image has the directories that things are mounted on, and our files with their modes, as root's."""
    (tmp_path / "etc" / "deep").mkdir(parents=True)
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "etc" / "deep" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "etc" / "deep" / "run").chmod(0o750)
    (tmp_path / "link").symlink_to("etc/passwd")
    os.chown(tmp_path / "link", os.getuid(), os.getgid(), follow_symlinks=False)
    with tarfile.open(fileobj=io.BytesIO(packed(str(tmp_path)))) as archive:
        entries = {entry.name: entry for entry in archive}
        content = archive.extractfile("etc/passwd")
        assert content is not None
        assert content.read() == b"root:x:0:0::/:/bin/sh\n"
    assert [entries[name].isdir() and entries[name].mode for name in DIRECTORIES] == [0o755] * len(DIRECTORIES)
    assert entries.keys() - set(DIRECTORIES) == {"etc/passwd", "etc/deep/run", "link"}
    assert entries["etc/deep/run"].mode == 0o750
    assert entries["link"].linkname == "etc/passwd"
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries.values()} == {(0, 0, "", "")}


def test_files_of_another_user_are_roots(tmp_path: Path) -> None:
    """Whoever runs the tests, an image's files are root's."""
    (tmp_path / "file").write_text("")
    if os.getuid() == 0:
        os.chown(tmp_path / "file", 1234, 1234)
    with tarfile.open(fileobj=io.BytesIO(packed(str(tmp_path)))) as archive:
        assert archive.getmember("file").uid == archive.getmember("file").gid == 0


def tar(entries: Mapping[str, object]) -> bytes:
    """Return an archive; what is not bytes becomes JSON."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


SAVED = {"config.json": {}, "layer.tar": LAYER, "manifest.json": [MANIFEST]}
"""What docker save writes, but for its names in other places."""


class Client:
    """An engine's client that loads nothing, and remembers what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.images = self
        self.entries: dict[str, bytes] = {}
        self.error = error

    def load(self, archive: Any) -> None:
        """Read an archive."""
        if self.error:
            raise self.error
        with tarfile.open(fileobj=archive) as given:
            files = {entry.name: given.extractfile(entry) for entry in given if entry.isfile()}
            self.entries = {name: file.read() for name, file in files.items() if file}


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Return a function that has an archive loaded, and returns what the engine got."""

    def loaded(content: bytes) -> dict[str, bytes]:
        (tmp_path / "image.tar").write_bytes(content)
        client: Any = Client()
        load(client, f"{tmp_path}/image.tar", TAG)
        return dict(client.entries)

    return loaded


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_image_gets_our_name_alone(loaded: Callable[..., dict[str, bytes]], pack: Callable[[bytes], bytes]) -> None:
    """An image that docker save has written is loaded under our name only, with all else as it was; packed or not."""
    entries = loaded(pack(tar({**SAVED, "repositories": {"theirs": {"1": "x"}}})))
    assert json.loads(entries.pop("manifest.json")) == [MANIFEST | {"RepoTags": [TAG]}]
    assert entries == {"config.json": b"{}", "layer.tar": LAYER}


def test_image_in_the_layout_of_oci(loaded: Callable[..., dict[str, bytes]]) -> None:
    """Where an OCI index names the image, it is our name that it has, and no annotation is added or lost."""
    named = {"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "docker.io/theirs:1", "other": "x"}
    manifests = [{"digest": "sha256:1", "annotations": named}, {"digest": "sha256:2"}, {"annotations": None}]
    index = {"schemaVersion": 2, "manifests": manifests}
    written = json.loads(loaded(tar({"index.json": index, "oci-layout": {}, **SAVED}))["index.json"])
    assert written["schemaVersion"] == 2
    assert written["manifests"][0]["annotations"] == {
        "org.opencontainers.image.ref.name": TAG,
        "io.containerd.image.name": TAG,
        "other": "x",
    }
    assert [manifest["annotations"] or None for manifest in written["manifests"][1:]] == [None, None]


def test_image_that_nobody_has_named(loaded: Callable[..., dict[str, bytes]]) -> None:
    """An image without a name gets ours."""
    entries = loaded(tar({**SAVED, "manifest.json": [MANIFEST | {"RepoTags": None}]}))
    assert json.loads(entries["manifest.json"])[0]["RepoTags"] == [TAG]


def test_links_and_directories_of_an_archive_stay(tmp_path: Path) -> None:
    """Layers may be links to each other, in directories: an archive is handed on as it is."""
    buffer = io.BytesIO(tar(SAVED))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name, kind, target in (("d", tarfile.DIRTYPE, ""), ("d/layer.tar", tarfile.SYMTYPE, "../layer.tar")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    (tmp_path / "image.tar").write_bytes(buffer.getvalue())
    client: Any = Client()
    seen: list[tuple[str, str]] = []
    client.load = lambda file: seen.extend((entry.name, entry.linkname) for entry in tarfile.open(fileobj=file))  # noqa: SIM115
    load(client, f"{tmp_path}/image.tar", TAG)
    assert seen[-2:] == [("d", ""), ("d/layer.tar", "../layer.tar")]


def damaged(content: bytes) -> bytes:
    """Return packed content with an error in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]


NO_ARCHIVES = {
    "several images": (tar({**SAVED, "manifest.json": [MANIFEST, MANIFEST]}), "it holds 2 images, and one is needed"),
    "no image": (tar({**SAVED, "manifest.json": []}), "it holds 0 images, and one is needed"),
    "no manifest": (tar({"layer.tar": LAYER}), "it has no manifest.json"),
    "no files": (tar({}), "it has no manifest.json"),
    "manifest is no JSON": (tar({"manifest.json": b"[{"}), "line 1 column"),
    "manifest is no text": (tar({"manifest.json": b"[\xff]"}), "decode byte"),
    "manifest is no list": (tar({"manifest.json": 5}), "is not of the known form"),
    "manifest is null": (tar({"manifest.json": None}), "is not of the known form"),
    "manifest is a mapping": (tar({"manifest.json": MANIFEST}), "it holds 3 images"),
    "manifest is one mapping": (tar({"manifest.json": {"a": 1}}), "is not of the known form"),
    "manifest of text": (tar({"manifest.json": ["text"]}), "is not of the known form"),
    "index is a list": (tar({**SAVED, "index.json": []}), "is not of the known form"),
    "truncated": (tar(SAVED)[:20_000], "unexpected end of data"),
    "gzip truncated": (gzip.compress(tar(SAVED))[:20_000], "end-of-stream marker"),
    "bzip2 truncated": (bz2.compress(tar(SAVED))[:20_000], "file could not be opened successfully"),
    "bzip2 damaged": (damaged(bz2.compress(tar(SAVED))), "file could not be opened successfully"),
    "xz truncated": (lzma.compress(tar(SAVED))[:20_000], "end-of-stream marker"),
    "xz damaged": (damaged(lzma.compress(tar(SAVED))), "Corrupt input data"),
    "not a tar": (b"#!/bin/sh\nexit 0\n" * 100, "file could not be opened successfully"),
    "empty": (b"", "file could not be opened successfully"),
}


@pytest.mark.parametrize(("content", "problem"), NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_image_archive(
    loaded: Callable[..., dict[str, bytes]], tmp_path: Path, content: bytes, problem: str
) -> None:
    """Whatever is wrong with an archive, it is one error that names the archive, what is wrong, and what to give."""
    with pytest.raises(DeploymentError) as caught:
        loaded(content)
    assert caught.value.brief.startswith(f"image archive {tmp_path}/image.tar cannot be loaded: ")
    assert problem in caught.value.brief.partition("cannot be loaded: ")[2]
    assert "\n" not in caught.value.brief
    assert "docker save" in caught.value.remedy


@pytest.mark.parametrize(("name", "problem"), [("absent.tar", "No such file or directory"), ("", "Is a directory")])
def test_archive_that_is_no_file(tmp_path: Path, name: str, problem: str) -> None:
    """An archive that is absent or a directory is named with the system's own words."""
    client: Any = Client()
    with pytest.raises(DeploymentError, match=f"image archive {tmp_path}/{name} cannot be loaded: {problem}"):
        load(client, f"{tmp_path}/{name}", TAG)


def test_archive_that_the_engine_refuses(tmp_path: Path) -> None:
    """What the engine finds wrong with an image is said of the archive."""
    (tmp_path / "image.tar").write_bytes(tar(SAVED))
    client: Any = Client(ImageLoadError("layer is odd"))
    with pytest.raises(DeploymentError, match=f"{tmp_path}/image.tar cannot be loaded: layer is odd"):
        load(client, f"{tmp_path}/image.tar", TAG)


@pytest.mark.parametrize("error", [NoConnection("gone"), APIError("refused"), OSError("gone")], ids=type)
def test_engine_that_fails_while_it_loads(tmp_path: Path, error: Exception) -> None:
    """An engine that goes away or refuses is no fault of the archive."""
    (tmp_path / "image.tar").write_bytes(tar(SAVED))
    client: Any = Client(error)
    with pytest.raises(type(error)) as caught:
        load(client, f"{tmp_path}/image.tar", TAG)
    assert caught.value is error


@pytest.fixture(autouse=True)
def config(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the caller's own engine and contexts away; return the directory of Docker's configuration."""
    for name in engine.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path_factory.mktemp("docker")
    (directory / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(engine, "SYSTEM_SOCKET", f"{tmp_path}/system.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{tmp_path}/runtime")
    return directory


def add_context(config: Path, name: str, host: str, *, is_current: bool = False) -> Path:
    """Make a context as docker context create does; return its file."""
    file = config / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}))
    if is_current:
        (config / "config.json").write_text(json.dumps({"currentContext": name}))
    return file


@pytest.mark.parametrize("where", ["unix:///x.sock", "tcp://localhost:2375", "ssh://me@there"])
def test_address_that_is_given(config: Path, where: str) -> None:
    """``DOCKER_HOST`` counts before everything else."""
    add_context(config, "current", "unix:///current.sock", is_current=True)
    assert address({"DOCKER_HOST": where, "DOCKER_CONTEXT": "unknown"}) == where


def test_address_of_the_current_context(config: Path) -> None:
    """The current context says where the engine is; ``DOCKER_CONTEXT`` names another."""
    add_context(config, "current", "unix:///current.sock", is_current=True)
    add_context(config, "other", "tcp://10.0.0.1:2376")
    assert address({}) == "unix:///current.sock"
    assert address({"DOCKER_CONTEXT": "other"}) == "tcp://10.0.0.1:2376"


def test_default_context_is_the_usual_socket(config: Path, tmp_path: Path) -> None:
    """The default context, named or not, has no address of its own; neither has one that the file does not know."""
    usual = f"unix://{tmp_path}/system.sock"
    environment = {"XDG_RUNTIME_DIR": f"{tmp_path}/runtime"}
    assert address(environment) == usual
    add_context(config, "current", "unix:///current.sock", is_current=True)
    assert address({**environment, "DOCKER_CONTEXT": "default"}) == usual
    (config / "config.json").unlink()
    assert address(environment) == usual


def test_context_that_is_not_there() -> None:
    """A context that nobody has made is an error with its name: another engine would be a surprise."""
    with pytest.raises(NixprocError, match="there is no Docker context 'nowhere', which DOCKER_CONTEXT names"):
        address({"DOCKER_CONTEXT": "nowhere"})


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"Name": "odd", "Endpoints": {"docker": 5}}', '{"Endpoints": {}}']
)
def test_context_that_cannot_be_read(config: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """A context whose file is broken is an error in words, and keeps the manager from being used."""
    add_context(config, "odd", "unix:///x.sock").write_text(content)
    with pytest.raises(NixprocError, match="the Docker context cannot be read: ") as caught:
        address({"DOCKER_CONTEXT": "odd"})
    assert caught.value.remedy == "see docker context ls"
    monkeypatch.setenv("DOCKER_CONTEXT", "odd")
    assert unavailable_reason().startswith("the Docker context cannot be read: ")


@pytest.mark.parametrize(
    ("sockets", "chosen"),
    [
        ([], "system.sock"),
        (["system.sock"], "system.sock"),
        (["runtime/docker.sock"], "runtime/docker.sock"),
        (["system.sock", "runtime/docker.sock"], "system.sock"),
    ],
)
def test_rootless_engine(tmp_path: Path, sockets: list[str], chosen: str) -> None:
    """The user's own engine is found where the system has none."""
    (tmp_path / "runtime").mkdir()
    for name in sockets:
        (tmp_path / name).touch()
    assert address({"XDG_RUNTIME_DIR": f"{tmp_path}/runtime"}) == f"unix://{tmp_path}/{chosen}"


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": ""}], ids=["unset", "empty"])
def test_runtime_directory_of_a_session_without_variables(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Without ``XDG_RUNTIME_DIR``, the usual directory is looked in, and nothing is expected there."""
    own = f"/run/user/{os.getuid()}/docker.sock"
    sockets = {own}
    # What is there is this machine's own matter.
    monkeypatch.setattr(os.path, "exists", sockets.__contains__)
    assert address(environment) == f"unix://{own}"
    sockets.clear()
    assert address(environment) == f"unix://{engine.SYSTEM_SOCKET}"


def test_settings_lead_to_the_same_engine(config: Path, tmp_path: Path) -> None:
    """What is kept of the environment names the engine that was found, also when the current context is another."""
    add_context(config, "current", "unix:///current.sock", is_current=True)
    environment = {"DOCKER_CONFIG": str(config), "HOME": str(tmp_path), "SECRET": "x", "PATH": "/bin"}
    found = settings(environment)
    assert found == {"DOCKER_CONFIG": str(config), "HOME": str(tmp_path), "DOCKER_HOST": "unix:///current.sock"}
    (config / "config.json").write_text("{}")
    assert address(found) == "unix:///current.sock"


def test_settings_of_a_remote_engine() -> None:
    """An engine that needs certificates is found again by the variables that named it."""
    environment = {"DOCKER_HOST": "tcp://localhost:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certificates"}
    assert settings(environment) == environment


Answers = Mapping[str, Any] | bytes

SUITABLE = {"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Os": "linux", "Version": "25.0"}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that runs an engine, which gives its answers in turn, and the last one again and again.

    The last one has a status.
    """
    running = []

    def serve(*answers: Answers, status: int = 200) -> str:
        bodies = [answer if isinstance(answer, bytes) else json.dumps(answer).encode() for answer in answers]
        waiting = [*((body, 200) for body in bodies[:-1]), (bodies[-1], status)]

        class Engine(BaseHTTPRequestHandler):
            wbufsize = -1  # one write for all: a client may be gone after the head

            def do_GET(self) -> None:
                body, code = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def address_string(self) -> str:
                return "nobody"

        server = ThreadingUnixStreamServer(f"{tmp_path}/engine.sock", Engine)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
        return f"unix://{tmp_path}/engine.sock"

    yield serve
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def test_engine_that_can_be_used(serve: Callable[..., str]) -> None:
    """Nothing is in the way of an engine that answers, and runs Linux."""
    serve(SUITABLE)
    assert unavailable_reason() == ""


def test_engine_of_the_current_context(
    serve: Callable[..., str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine is asked at the address that its context has."""
    add_context(config, "mine", serve(SUITABLE), is_current=True)
    monkeypatch.delenv("DOCKER_HOST")
    assert unavailable_reason() == ""


@pytest.mark.parametrize(
    ("version", "said"), [({"Os": "windows"}, "windows"), ({"Os": ""}, ""), ({"Os": None}, "None")]
)
def test_engine_of_another_system(serve: Callable[..., str], version: dict[str, Any], said: str) -> None:
    """An engine that runs other programs than ours cannot be used, and is said what it runs."""
    serve(SUITABLE | version)
    assert unavailable_reason() == f"the engine runs {said} containers, and Linux ones are needed"


GARBAGE: tuple[Answers, ...] = (
    *(b"", b"it works!", b"[]", b"null", b'"text"', b"{", b"\xff", {}),
    *({"ApiVersion": "x"}, {"ApiVersion": ""}, {"ApiVersion": 5}, {"ApiVersion": "1.4x"}, {"ApiVersion": "1.2"}),
)


@pytest.mark.parametrize("answer", GARBAGE, ids=repr)
def test_something_else_answers(serve: Callable[..., str], answer: Answers) -> None:
    """What answers and is no engine, or one of long ago, is said with its address and in one line."""
    where = serve(answer)
    assert unavailable_reason().startswith(f"the Docker engine at {where} does not answer; ")
    assert "fix: start the engine" in unavailable_reason()
    assert "\n" not in unavailable_reason()


@pytest.mark.parametrize("answer", [b"it works!", b"", b"{"], ids=repr)
def test_engine_that_changes_its_mind(serve: Callable[..., str], answer: bytes) -> None:
    """An engine whose second answer is none cannot be used, which is no crash."""
    serve(SUITABLE, answer)
    assert unavailable_reason() != ""


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_engine_that_refuses(serve: Callable[..., str], status: int) -> None:
    """An engine that refuses to answer cannot be used, at the first question and later."""
    serve({"message": "not today"}, status=status)
    assert "refuses to answer; not today; fix: " in unavailable_reason()


@pytest.mark.parametrize("status", [400, 500])
def test_engine_that_refuses_later(serve: Callable[..., str], status: int) -> None:
    """An engine that agreed on a version and refuses then cannot be used, and its words say why."""
    serve(SUITABLE, {"message": "not today"}, status=status)
    assert "not today" in unavailable_reason()


@pytest.mark.parametrize("kind", ["absent", "file", "socket"])
def test_nothing_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Where nothing listens, the reason is the system's, and the address is said."""
    path = tmp_path / "engine.sock"
    if kind == "file":
        path.touch()
    if kind == "socket":
        ThreadingUnixStreamServer(str(path), BaseHTTPRequestHandler).server_close()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    reason = {"absent": "No such file or directory"}.get(kind, "Connection refused")
    assert unavailable_reason().startswith(f"the Docker engine at unix://{path} does not answer; {reason}; fix: ")
    with pytest.raises(Unreachable, match=f"the Docker engine at unix://{path} does not answer"):
        connect({"DOCKER_HOST": f"unix://{path}"})


@pytest.mark.parametrize("answer", [None, b"it works!", {"ApiVersion": "1.2"}, SUITABLE], ids=repr)
def test_no_socket_is_left(serve: Callable[..., str], tmp_path: Path, answer: Answers | None) -> None:
    """Whoever looks for an engine leaves no socket open: that would be a warning in a test of somebody's."""
    where = f"unix://{tmp_path}/absent.sock" if answer is None else serve(answer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with suppress(Unreachable):
            connect({"DOCKER_HOST": where}).close()
        gc.collect()
    assert [warning.message for warning in caught] == []


@pytest.mark.parametrize(
    "where", ["tcp://10.0.0.1:2375", "ssh://me@there", "tcp://[fe80::1]:2375", "https://docker.example.org:2376"]
)
def test_engine_of_another_machine(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """An engine elsewhere has not our files, and is not even asked."""
    monkeypatch.setenv("DOCKER_HOST", where)
    monkeypatch.setattr(engine, "connect", lambda *_: pytest.fail("it was asked"))
    assert unavailable_reason().startswith(f"the engine at {where} is on another machine")


@pytest.mark.parametrize("where", ["tcp://localhost:1", "tcp://127.0.0.1:1", "http://127.0.0.1:1"])
def test_engine_of_this_machine_by_tcp(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """An engine of this machine is asked, by whichever of its addresses."""
    monkeypatch.setenv("DOCKER_HOST", where)
    assert unavailable_reason().startswith(f"the Docker engine at {where} does not answer; ")


@pytest.mark.parametrize(
    "where",
    ["tcp://[::1", "tcp://localhost:port", "tcp://localhost:99999", "tcp://", "fd://", "odd:///x", "tcp://localhost"],
)
def test_address_that_is_none(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """What is no address is said to be none, without a crash."""
    monkeypatch.setenv("DOCKER_HOST", where)
    assert where in unavailable_reason()


def test_certificates_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is to be asked with certificates cannot be without them."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://localhost:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert "certificate" in unavailable_reason()


def test_sdk_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK, its installation is the remedy."""
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    assert unavailable_reason() == "the Docker SDK is not installed: pip install docker"


def test_innermost_cause() -> None:
    """An error's reason is the one that all others are made of; a system's without its number."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = ValueError("wrapped, too")
    outer.__cause__.__context__ = PermissionError(13, "Permission denied", "/x.sock")
    assert cause_of(outer) == "Permission denied"
    assert cause_of(ValueError("bare")) == "bare"
    assert cause_of(OSError("no number")) == "no number"
