"""A web application in one file: its page says on which port it is served.

    PORT=5000 python3 webapp.py                                in the foreground
    PORT=5000 PID_FILE=/tmp/webapp.pid python3 webapp.py -D    as a daemon

The command of a daemon ends when the daemon listens and PID_FILE holds its PID; a PID_FILE that exists already makes it
fail. SIGTERM ends the program with status 0, and removes PID_FILE.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading

LONGEST_REQUEST = 65536
REQUEST_SECONDS = 10
ENDS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Serve as the arguments and the environment say."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["-D"]):
        print("usage: webapp.py [-D]", file=sys.stderr)
        sys.exit(2)
    port = port_number(setting("PORT"))
    # They wait until serve() asks for them: a handler that is called just before a call that blocks would not end that.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    # A manager's "reload": there is nothing to read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if arguments:
        serve_as_daemon(port, setting("PID_FILE"))
    else:
        serve(listen(port), port)


def setting(name: str) -> str:
    """Return a mandatory environment variable."""
    return os.environ.get(name) or sys.exit(f"webapp: the environment variable {name} is not set")


def port_number(text: str) -> int:
    """Return a TCP port from its text."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        sys.exit(f"webapp: PORT={text} is no TCP port")
    return int(text)


def serve_as_daemon(port: int, pid_file: str) -> None:
    """Serve in the background; this process ends with status 0 once that listens, or with 1 when it cannot."""
    reporter = into_background()
    listener = listen(port)
    claim(pid_file)
    try:
        os.write(reporter, b"ready")
        os.close(reporter)
        let_go_of_caller()
        serve(listener, port)
    finally:
        os.unlink(pid_file)


def into_background() -> int:
    """Go on in a grandchild without a terminal; return the pipe by which it tells the first process of its success."""
    reported, reporter = os.pipe()
    if child := os.fork():
        os.close(reporter)
        os.waitpid(child, 0)
        os._exit(0 if os.read(reported, 1) else 1)
    os.close(reported)
    os.setsid()
    # Only the leader of a session can acquire a terminal: go on in a process that is none.
    if os.fork():
        os._exit(0)
    return reporter


def let_go_of_caller() -> None:
    """Leave the caller's terminal or pipes, whose reader would wait for the daemon's end; a log file is kept."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        if stream == 0 or not stat.S_ISREG(os.fstat(stream).st_mode):
            os.dup2(nothing, stream)
    os.close(nothing)


def claim(pid_file: str) -> None:
    """Make the PID file, which must not exist."""
    try:
        descriptor = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        sys.exit(f"webapp: cannot make PID file {pid_file}: {error.strerror}")
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.close(descriptor)


def listen(port: int) -> socket.socket:
    """Return a listening socket."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"webapp: cannot listen on port {port}: {error.strerror}")
    listener.listen()
    return listener


def serve(listener: socket.socket, port: int) -> None:
    """Answer connections until a signal asks for the end."""
    print(f"listening on port {port}", flush=True)
    threading.Thread(target=accept, args=(listener, port), daemon=True).start()
    signal.sigwait(ENDS)


def accept(listener: socket.socket, port: int) -> None:
    """Answer every connection, each in a thread of its own."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, port), daemon=True).start()


def answer(connection: socket.socket, port: int) -> None:
    """Read one request and send the page; a client that sends none gets none."""
    with connection:
        connection.settimeout(REQUEST_SECONDS)
        try:
            if request := read_request(connection):
                print(request, flush=True)
                connection.sendall(reply(port))
        except OSError as error:
            print(f"a client went away: {error}", flush=True)


def read_request(connection: socket.socket) -> str:
    """Return the first line of a request, once its head is complete; empty without one."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < LONGEST_REQUEST:
        received = connection.recv(LONGEST_REQUEST)
        if not received:
            return ""
        head += received
    return head.split(b"\r\n")[0].decode("ascii", "replace")


def reply(port: int) -> bytes:
    """Return the page, with what HTTP wants around it."""
    page = f"<!DOCTYPE html>\n<title>webapp</title>\n<p>This web application is served on port {port}.</p>\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
    return head.encode() + page


if __name__ == "__main__":
    main()
