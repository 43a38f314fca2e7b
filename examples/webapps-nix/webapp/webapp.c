/* A web application: its page says on which port it is served.
 *
 *     PORT=5000 webapp                             in the foreground
 *     PORT=5000 PID_FILE=/tmp/webapp.pid webapp -D    as a daemon
 *
 * The command of a daemon ends when the daemon listens and PID_FILE holds its PID; a PID_FILE that exists already makes
 * it fail. SIGTERM ends the program with status 0, and removes PID_FILE.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *pid_file;
static int port;

static void fail(const char *what, const char *name)
{
    fprintf(stderr, "webapp: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static const char *setting(const char *name)
{
    const char *value = getenv(name);

    if (value == NULL || *value == '\0') {
        fprintf(stderr, "webapp: the environment variable %s is not set\n", name);
        exit(1);
    }
    return value;
}

/* Only calls that are safe in a handler of signals: unlink(2) and _exit(2). */
static void end(int number)
{
    (void)number;
    if (pid_file != NULL)
        unlink(pid_file);
    _exit(0);
}

static int listen_on(const char *text)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128))
        fail("cannot listen on port", text);
    return listener;
}

/* Returns the pipe by which the daemon tells the command of its success; the command itself does not return. */
static int into_background(void)
{
    int report[2];
    char ready;

    if (pipe(report))
        fail("cannot make a", "pipe");
    if (fork() > 0) {
        close(report[1]);
        wait(NULL);
        _exit(read(report[0], &ready, 1) == 1 ? 0 : 1);
    }
    close(report[0]);
    setsid();
    /* Only the leader of a session can acquire a terminal: go on in a process that is none. */
    if (fork() > 0)
        _exit(0);
    return report[1];
}

static void claim(const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);

    if (file < 0)
        fail("cannot make PID file", path);
    dprintf(file, "%d\n", (int)getpid());
    close(file);
    pid_file = path;
}

/* Lets go of the caller's terminal or pipes, whose reader would wait for the daemon's end; a log file is kept. */
static void let_go_of_caller(void)
{
    int nothing = open("/dev/null", O_RDWR);
    struct stat facts;

    for (int stream = 0; stream < 3; stream++)
        if (stream == 0 || fstat(stream, &facts) || !S_ISREG(facts.st_mode))
            dup2(nothing, stream);
}

static void *answer(void *argument)
{
    int connection = (int)(long)argument;
    struct timeval limit = {.tv_sec = 10};
    char request[8192], page[256];
    size_t length = 0;
    ssize_t got;

    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (length < sizeof request - 1 && (got = read(connection, request + length, sizeof request - 1 - length)) > 0) {
        request[length += got] = '\0';
        if (strstr(request, "\r\n\r\n") != NULL) {
            int size = snprintf(page, sizeof page, "<!DOCTYPE html>\n<title>webapp</title>\n"
                                "<p>This web application is served on port %d.</p>\n", port);

            printf("%.*s\n", (int)strcspn(request, "\r\n"), request);
            dprintf(connection, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n"
                    "Connection: close\r\n\r\n%s", size, page);
            break;
        }
    }
    close(connection);
    return NULL;
}

static void serve(int listener)
{
    pthread_t thread;
    int connection;

    for (;;)
        if ((connection = accept(listener, NULL, NULL)) >= 0) {
            if (pthread_create(&thread, NULL, answer, (void *)(long)connection))
                close(connection);
            else
                pthread_detach(thread);
        }
}

int main(int count, char **arguments)
{
    int is_daemon = count == 2 && strcmp(arguments[1], "-D") == 0, reporter = -1, listener;
    const char *text = setting("PORT"), *path = is_daemon ? setting("PID_FILE") : NULL;

    if (count > 1 && !is_daemon) {
        fprintf(stderr, "usage: webapp [-D]\n");
        return 2;
    }
    port = atoi(text);
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* A manager's "reload": there is nothing to read again. A client that goes away must not end us. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (is_daemon)
        reporter = into_background();
    listener = listen_on(text);
    if (is_daemon)
        claim(path);
    signal(SIGTERM, end);
    signal(SIGINT, end);
    printf("listening on port %d\n", port);
    if (is_daemon) {
        if (write(reporter, "1", 1) != 1)
            return 1;
        close(reporter);
        let_go_of_caller();
    }
    serve(listener);
}
