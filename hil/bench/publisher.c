/* The least that can publish with QoS 1: MQTT 3.1.1, a socket, a window. Baseline of `axond bench uplink`.
 *
 *   publisher PORT TOPIC PAYLOAD_FILE WINDOW SECONDS     prints acknowledged messages a second
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PAYLOAD = 1 << 16, MOST_PACKET = MOST_PAYLOAD + 512 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void send_all(int line, const uint8_t *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(line, bytes, count, 0);
        if (sent <= 0) fail("send");
        bytes += sent;
        count -= (size_t)sent;
    }
}

static size_t put_text(uint8_t *to, const char *text) {
    size_t length = strlen(text);
    to[0] = (uint8_t)(length >> 8);
    to[1] = (uint8_t)length;
    memcpy(to + 2, text, length);
    return length + 2;
}

static size_t put_length(uint8_t *to, size_t length) {
    size_t used = 0;
    do {
        to[used] = (uint8_t)(length & 0x7f);
        length >>= 7;
        if (length > 0) to[used] |= 0x80;
        used++;
    } while (length > 0);
    return used;
}

int main(int count, char **arguments) {
    static uint8_t payload[MOST_PAYLOAD], packet[MOST_PACKET], answers[1 << 14];
    if (count != 6) return 2;
    FILE *file = fopen(arguments[3], "rb");
    if (file == NULL) fail(arguments[3]);
    size_t payload_bytes = fread(payload, 1, sizeof payload, file);
    fclose(file);
    long window = atol(arguments[4]);
    double seconds = atof(arguments[5]);

    int line = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in broker = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    inet_pton(AF_INET, "127.0.0.1", &broker.sin_addr);
    if (connect(line, (struct sockaddr *)&broker, sizeof broker) != 0) fail("connect");
    setsockopt(line, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    uint8_t hello[] = {0x10, 21, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 9, 'p', 'u', 'b', 'l', 'i', 's', 'h', 'e', 'r'};
    send_all(line, hello, sizeof hello);
    if (recv(line, answers, 4, MSG_WAITALL) != 4 || answers[3] != 0) fail("CONNACK");

    size_t topic_bytes = strlen(arguments[2]) + 2;
    packet[0] = 0x32; /* PUBLISH, QoS 1 */
    size_t id_at = 1 + put_length(packet + 1, topic_bytes + 2 + payload_bytes);
    id_at += put_text(packet + id_at, arguments[2]);
    memcpy(packet + id_at + 2, payload, payload_bytes);
    size_t packet_bytes = id_at + 2 + payload_bytes;

    long sent = 0, acknowledged = 0;
    size_t odd_bytes = 0;
    double begin_s = now_s();
    while (now_s() - begin_s < seconds) {
        while (sent - acknowledged < window) {
            uint16_t id = (uint16_t)(sent % 65535 + 1);
            packet[id_at] = (uint8_t)(id >> 8);
            packet[id_at + 1] = (uint8_t)id;
            send_all(line, packet, packet_bytes);
            sent++;
        }
        ssize_t got = recv(line, answers, sizeof answers, 0);
        if (got <= 0) fail("recv");
        odd_bytes += (size_t)got; /* a PUBACK has four bytes */
        acknowledged += (long)(odd_bytes / 4);
        odd_bytes %= 4;
    }
    printf("%.1f\n", (double)acknowledged / (now_s() - begin_s));
    close(line);
    return 0;
}
