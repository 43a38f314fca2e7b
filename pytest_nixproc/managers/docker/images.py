"""Images of a deployment: made of a directory of generated files, or loaded from an archive, under our own name."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from lzma import LZMAError
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, Final

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.managers.docker.connection import LOAD_SECONDS, MAKE_SECONDS, Connection
from pytest_nixproc.managers.docker.container import ContainerSpec
from pytest_nixproc.managers.docker.generator import image_prefix, label_of
from pytest_nixproc.managers.docker.labels import labels_of
from pytest_nixproc.values.target import Target

if TYPE_CHECKING:
    from docker import DockerClient

DIRECTORIES: Final = ("dev", "etc", "nix", "proc", "root", "run", "sys", "tmp", "usr", "var", "var/tmp")
"""The directories of every image, on which containers mount other things."""

CLOSED: Final = 0o600
"""The mode of generated files, which other users of this machine cannot read."""

MANIFEST: Final = "manifest.json"
INDEX: Final = "index.json"
OLD_NAMES: Final = "repositories"
NAMES_IN_INDEX: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Images:
    """The images of a deployment, which its containers share."""

    def __init__(self, target: Target, connection: Connection) -> None:
        self.target = target
        self.connection = connection
        self._made: set[str] = set()
        self._making = Lock()

    def make(self, container: ContainerSpec) -> None:
        """Make the image that containers share; whoever comes first makes it, the others wait."""
        with self._making:
            if container.image and container.tag not in self._made:
                seconds = MAKE_SECONDS if os.path.isdir(container.image) else LOAD_SECONDS
                with self.connection.asking(seconds) as client:
                    make(client, container.image, container.tag, labels_of(self.target))
                self._made.add(container.tag)

    def forget(self) -> None:
        """Forget which images were made, so that they are made again: their files may have changed."""
        self._made.clear()

    def here(self, client: DockerClient) -> Iterator[str]:
        """Yield the images that exist: by our names, and by our label where a later image has taken the name."""
        prefix = image_prefix(self.target)
        for image in client.api.images(filters={"reference": f"{prefix}*"}):
            # An image of another deployment's archive, too, has its name there.
            yield from (name for name in image["RepoTags"] or () if name.rpartition("/")[2].startswith(prefix))
        for image in client.api.images(filters={"label": label_of(self.target), "dangling": True}):
            yield image["Id"]

    def remove(self, client: DockerClient, name: str) -> None:
        """Remove an image; one that is gone is no error."""
        from docker.errors import NotFound

        with suppress(NotFound):
            client.api.remove_image(name, force=True)


def make(client: DockerClient, source: str, tag: str, labels: Mapping[str, str]) -> None:
    """Make an image of a directory, or load it from an archive; raises :class:`~pytest_nixproc.errors.DeploymentError`.

    It goes by no other name than ``tag``: what a deployment has made, it can remove.
    """
    if os.path.isdir(source):
        repository, _, version = tag.rpartition(":")
        changes = [f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()]
        client.api.import_image_from_data(packed(source), repository=repository, tag=version, changes=changes)
    else:
        load(client, source, tag)


def packed(directory: str) -> bytes:
    """Return a directory's files, and the directories that every image has, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for folder, _, names in sorted(os.walk(directory)):
            for name in sorted(names):
                path = os.path.join(folder, name)
                archive.add(path, os.path.relpath(path, directory), filter=for_all_users)
    return buffer.getvalue()


def for_all_users(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return an entry of an archive with root as its owner; what we have generated may be read by all users there."""
    if entry.mode & 0o7777 == CLOSED:
        entry.mode = 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def load(client: DockerClient, archive: str, tag: str) -> None:
    """Load an image under another name than its archive gives it."""
    from docker.errors import ImageLoadError

    with tempfile.TemporaryFile() as renamed:
        with readable(archive), tarfile.open(archive) as given:
            rename(given, renamed, tag)
        try:
            client.images.load(renamed)
        except ImageLoadError as error:
            raise unloadable(archive, str(error)) from error


@contextmanager
def readable(archive: str) -> Iterator[None]:
    """Raise one kind of error for every way in which an archive cannot be read."""
    try:
        yield
    except KeyError as error:
        raise unloadable(archive, f"it has no {MANIFEST}") from error
    except (AttributeError, TypeError) as error:
        raise unloadable(archive, f"its {MANIFEST} or {INDEX} is not of the known form") from error
    except (OSError, EOFError, ValueError, LZMAError, tarfile.TarError, zlib.error) as error:
        raise unloadable(archive, getattr(error, "strerror", None) or str(error).partition(":\n")[0]) from error


def unloadable(archive: str, problem: str) -> DeploymentError:
    """Return the error about an archive that is no image."""
    remedy = "give an archive that docker save or buildImage has made"
    return DeploymentError(f"image archive {archive} cannot be loaded: {problem}", remedy=remedy)


def rename(given: tarfile.TarFile, renamed: IO[bytes], tag: str) -> None:
    """Write an archive anew, in which one image has one name (the image specification of Docker 1.2, and OCI's)."""
    images: list[dict[str, Any]] = json.load(content_of(given, MANIFEST))
    if len(images) != 1:
        raise ValueError(f"it holds {len(images)} images, and one is needed")
    (image,) = images
    with tarfile.open(fileobj=renamed, mode="w") as archive:
        for entry in given:
            if entry.name == MANIFEST:
                add(archive, entry, [image | {"RepoTags": [tag]}])
            elif entry.name == INDEX:
                add(archive, entry, retagged(json.load(content_of(given, INDEX)), tag))
            elif entry.name != OLD_NAMES:
                archive.addfile(entry, given.extractfile(entry) if entry.isfile() else None)
    renamed.seek(0)


def content_of(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return the content of a file in an archive."""
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def add(archive: tarfile.TarFile, entry: tarfile.TarInfo, content: object) -> None:
    """Add a file of JSON to an archive."""
    data = json.dumps(content).encode()
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def retagged(index: dict[str, Any], tag: str) -> dict[str, Any]:
    """Return an OCI index with every name of its image replaced by a tag of ours."""
    for manifest in index.get("manifests", ()):
        known = manifest.get("annotations") or {}
        manifest["annotations"] = known | {name: tag for name in NAMES_IN_INDEX if name in known}
    return index
