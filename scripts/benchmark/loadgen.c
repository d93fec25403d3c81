/* A load of state changes: publishes to state/dev<i> at QoS 1, keeps some outstanding, waits for what comes on out/#.
 *
 *   loadgen PORT COUNT OUTSTANDING DEVICES
 *
 * A closed loop over one MQTT 3.1.1 connection and no library, so that it costs little beside what is measured. Each
 * device alternates between ON and OFF, so that every message is a change; the time of sending travels in the payload
 * and comes back with the automation's message. Prints one line of JSON; exit code 1 if nothing came for 15 seconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CONNACK = 2, PUBLISH = 3, SUBACK = 9, ROOM = 1 << 22, STALLED_S = 15 };

static int link_fd;
static unsigned char in[ROOM], out[ROOM];
static size_t in_used, out_used;
static long count, outstanding, devices, sent, received, duplicates;
static double *latencies;
static unsigned char *seen;
static int granted;

static void die(const char *words) {
    fprintf(stderr, "loadgen: %s: %s\n", words, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static void put(const void *bytes, size_t length) {
    if (out_used + length > ROOM) die("more is waiting to be sent than there is room for");
    memcpy(out + out_used, bytes, length);
    out_used += length;
}

static void put_packet(unsigned char first, const unsigned char *body, size_t length) {
    unsigned char head[5] = {first};
    size_t used = 1, rest = length;
    do {
        head[used] = rest % 128;
        rest /= 128;
        if (rest) head[used] |= 128;
        used++;
    } while (rest);
    put(head, used);
    put(body, length);
}

static size_t text(unsigned char *to, const char *from) {
    size_t length = strlen(from);
    to[0] = length >> 8;
    to[1] = length & 255;
    memcpy(to + 2, from, length);
    return length + 2;
}

static void put_state(void) {
    unsigned char body[512];
    char topic[64];
    long device = sent % devices;
    uint16_t packet_id = sent % 65535 + 1;
    snprintf(topic, sizeof topic, "state/dev%ld", device);
    size_t used = text(body, topic);
    body[used++] = packet_id >> 8;
    body[used++] = packet_id & 255;
    used += snprintf((char *)body + used, 256, "{\"state\":\"%s\",\"n\":%ld,\"t\":%.9f}",
                     (sent / devices) % 2 ? "OFF" : "ON", sent, now());
    put_packet(PUBLISH << 4 | 1 << 1, body, used);
    sent++;
}

static double number(const char *payload, const char *name) {
    const char *at = strstr(payload, name);
    return at ? strtod(at + strlen(name) + strspn(at + strlen(name), " :\""), NULL) : -1;
}

static void take_output(unsigned char first, unsigned char *body, size_t length) {
    size_t topic = 2 + (body[0] << 8 | body[1]), start = topic + ((first >> 1 & 3) ? 2 : 0);
    if (start > topic) put_packet(0x40, body + topic, 2);
    char payload[512];
    size_t size = length - start < sizeof payload - 1 ? length - start : sizeof payload - 1;
    memcpy(payload, body + start, size);
    payload[size] = 0;
    long n = (long)number(payload, "\"n\"");
    if (n < 0 || n >= count || seen[n]++) {
        duplicates++;
        return;
    }
    latencies[received++] = now() - number(payload, "\"t\"");
    if (sent < count) put_state();
}

static void take_packet(unsigned char first, unsigned char *body, size_t length) {
    if (first >> 4 == CONNACK && body[1] != 0) die("the broker refused the connection");
    if (first >> 4 == SUBACK) granted = 1;
    if (first >> 4 == PUBLISH) take_output(first, body, length);
}

static void take_input(void) {
    size_t at = 0;
    for (;;) {
        size_t length = 0, used = 1, shift = 0;
        unsigned char byte = 128;
        while ((byte & 128) && at + used < in_used) {
            byte = in[at + used++];
            length |= (size_t)(byte & 127) << shift;
            shift += 7;
        }
        if ((byte & 128) || at + used + length > in_used) break;
        take_packet(in[at], in + at + used, length);
        at += used + length;
    }
    memmove(in, in + at, in_used - at);
    in_used -= at;
}

static void turn(void) {
    struct pollfd wanted = {.fd = link_fd, .events = POLLIN | (out_used ? POLLOUT : 0)};
    if (poll(&wanted, 1, 200) < 0) die("poll");
    if (wanted.revents & POLLOUT) {
        ssize_t gone = write(link_fd, out, out_used);
        if (gone < 0 && errno != EAGAIN) die("write");
        if (gone > 0) {
            memmove(out, out + gone, out_used - gone);
            out_used -= gone;
        }
    }
    if (wanted.revents & (POLLIN | POLLHUP | POLLERR)) {
        ssize_t came = read(link_fd, in + in_used, ROOM - in_used);
        if (came == 0 || (came < 0 && errno != EAGAIN)) die("the broker closed the connection");
        if (came > 0) {
            in_used += came;
            take_input();
        }
    }
}

static void open_link(int port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    link_fd = socket(AF_INET, SOCK_STREAM, 0);
    if (link_fd < 0 || connect(link_fd, (struct sockaddr *)&where, sizeof where) < 0) die("connect");
    setsockopt(link_fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(link_fd, F_SETFL, O_NONBLOCK);
    unsigned char body[64];
    size_t used = text(body, "MQTT");
    memcpy(body + used, "\x04\x02\x00\x00", 4); /* level 4, clean session, no keep alive */
    used += 4;
    put_packet(0x10, body, used + text(body + used, "loadgen"));
    memcpy(body, "\x00\x01", 2);
    used = 2 + text(body + 2, "out/#");
    body[used++] = 1;
    put_packet(0x82, body, used);
    while (!granted) turn();
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: loadgen PORT COUNT OUTSTANDING DEVICES\n");
        return 2;
    }
    count = atol(argv[2]), outstanding = atol(argv[3]), devices = atol(argv[4]);
    latencies = calloc(count, sizeof *latencies);
    seen = calloc(count, 1);
    open_link(atoi(argv[1]));
    double started = now(), last = started;
    while (sent < count && sent < outstanding) put_state();
    while (received < count) {
        long before = received;
        turn();
        if (received != before) last = now();
        if (now() - last > STALLED_S) break;
    }
    double seconds = now() - started;
    qsort(latencies, received, sizeof *latencies, by_size);
    double p50 = received ? latencies[received / 2] : 0, p99 = received ? latencies[received * 99 / 100] : 0;
    printf("{\"sent\": %ld, \"received\": %ld, \"duplicates\": %ld, \"seconds\": %.4f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
           sent, received, duplicates, seconds, p50 * 1e3, p99 * 1e3);
    return received < count;
}
