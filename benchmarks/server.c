/* A server that costs next to nothing to start: `server PORT [--delay MS]`.
 *
 * Listens on 127.0.0.1:PORT, after MS milliseconds of sleep, and answers every connection with its port in a small HTTP
 * reply. SIGTERM ends it at once, as it ends every program that does not handle it.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int listen_on(int port)
{
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("server");
        exit(1);
    }
    return listener;
}

/* Reads before it writes: closing a socket with unread bytes would reset the connection. */
static void answer(int client, const char *reply)
{
    char request[4096];
    struct timeval limit = {.tv_sec = 1};

    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (read(client, request, sizeof request) > 0)
        send(client, reply, strlen(reply), MSG_NOSIGNAL);
    close(client);
}

int main(int argc, char **argv)
{
    char reply[128];
    int port = argc > 1 ? atoi(argv[1]) : 0, milliseconds = 0;

    if (argc == 4 && !strcmp(argv[2], "--delay"))
        milliseconds = atoi(argv[3]);
    else if (argc != 2)
        port = 0;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: %s PORT [--delay MS]\n", argv[0]);
        return 2;
    }
    nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L}, NULL);
    snprintf(reply, sizeof reply, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n%d\n", port);
    for (int listener = listen_on(port);;) {
        int client = accept(listener, NULL, NULL);

        if (client >= 0)
            answer(client, reply);
    }
}
