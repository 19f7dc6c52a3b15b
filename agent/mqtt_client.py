"""paho's client for many small messages: one system call moves what paho would move in three or more a message.

paho reads each packet in three calls and wakes its thread by a byte through a pipe for each message. Here the socket
reads ahead and gathers what is written (as paho's own wrapper for WebSockets does), and a thread of our own runs
paho's ``loop_read``, ``loop_write`` and ``loop_misc`` and is woken only while it sleeps.
"""

import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.link import GATHER_S

READ_BYTES = 65536
GATHER_BYTES = 65536
"""So much is gathered before it is written."""
_MALFORMED = (MQTTException, IndexError, KeyError, ValueError, struct.error)
"""What paho's reading of properties raises."""
AT_ONCE = 64
"""Packets that are read before anything else is looked after."""


class BufferedSocket:
    """A connected socket that reads ahead and gathers what is sent until ``flush``. It is non-blocking, as paho's."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        # What is sent is gathered already; Nagle's algorithm would hold a batch back for 40 ms behind a small answer.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self._at = 0
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Raises as the socket does, once all that was read ahead is taken."""
        if self._at == len(self._read):
            self._receive(max(size, READ_BYTES))
        part = self._read[self._at : self._at + size]
        self._at += len(part)
        return part

    def packet(self) -> tuple[int, bytes] | None:
        """The next packet, if all of it has come: its first byte, and what follows its length."""
        if self._at == len(self._read):
            try:
                self._receive(READ_BYTES)
            except OSError:  # whoever reads it piece by piece meets it again
                return None
        start = self._at
        size, body = _length(self._read[start + 1 : start + 5])
        # paho takes a zero for the beginning of no packet at all: that one it must read itself, and refuse.
        if size is None or start + 1 + body + size > len(self._read) or not self._read[start]:
            return None
        self._at = start + 1 + body + size
        return self._read[start], self._read[start + 1 + body : self._at]

    def _receive(self, size: int) -> None:
        self._read, self._at = self._raw.recv(size), 0
        # A broker with Nagle's algorithm holds the next message until it hears of this one, which may take 40 ms.
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def pending(self) -> int:
        """Bytes that were read ahead: a poll of the socket does not tell of them."""
        waiting = self._raw.pending() if isinstance(self._raw, ssl.SSLSocket) else 0
        return len(self._read) - self._at + waiting

    def send(self, data: bytes | bytearray) -> int:
        """Takes all of it, or raises BlockingIOError while as much as is gathered cannot be written."""
        if len(self._unsent) >= GATHER_BYTES:
            self.flush()
            if len(self._unsent) >= GATHER_BYTES:
                raise BlockingIOError
        self._unsent += data
        return len(data)

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    def flush(self) -> None:
        """Writes what the network takes now."""
        while self._unsent:
            try:
                sent = self._raw.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:  # a stream with a hole in it is no use: the next read tells that it has ended
                self._unsent.clear()
                with suppress(OSError):
                    self.shutdown()
                return
            del self._unsent[:sent]

    def close(self) -> None:
        self.flush()  # a goodbye is gathered just before
        self._raw.close()

    def setblocking(self, flag: bool) -> None:
        self._raw.setblocking(flag)

    def fileno(self) -> int:
        return self._raw.fileno()

    def shutdown(self) -> None:
        """Ends the connection at once, from any thread. Raises OSError if it has ended."""
        # Not SSLSocket's: that forgets its TLS first, and a write on another thread would go out in clear.
        socket.socket.shutdown(self._raw, socket.SHUT_RDWR)


class BurstClient(Client):
    """One connection of paho's, served by a thread of its own from ``begin`` until it ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.few = 0
        """Answers to so many messages are gathered for ``GATHER_S``: whoever sends little wakes less often."""
        self.on_rest: Callable[[], None] = _later
        """Called on the thread that serves when it is about to sleep, and at the end."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self._server = Thread(target=self._serve, name="mqtt", daemon=True)
        self.on_socket_register_write = _later

    def begin(self) -> None:
        """Serves the connection, which exists."""
        self._server.start()

    def finish(self) -> None:
        """Waits for the end of the connection, ends one that was never served; nothing may be called afterwards."""
        if self._server.ident is not None:
            self._server.join()
        self._sock_close()
        os.close(self._bell)

    def publish(self, *arguments: Any, **options: Any) -> MQTTMessageInfo:
        info = super().publish(*arguments, **options)
        self._wake()
        return info

    def subscribe(self, *arguments: Any, **options: Any) -> tuple[MQTTErrorCode, int | None]:
        answer = super().subscribe(*arguments, **options)
        self._wake()
        return answer

    def ack(self, mid: int, qos: int) -> MQTTErrorCode:
        answer = super().ack(mid, qos)
        self._wake()
        return answer

    def disconnect(self, *arguments: Any, **options: Any) -> MQTTErrorCode:
        answer = super().disconnect(*arguments, **options)
        self._wake()
        return answer

    def want_write(self) -> bool:
        link = self.socket()
        return super().want_write() or (isinstance(link, BufferedSocket) and link.unsent > 0)

    def loop_write(self) -> MQTTErrorCode:
        answer = super().loop_write()
        link = self.socket()
        if isinstance(link, BufferedSocket):
            link.flush()
        return answer

    def _packet_read(self) -> MQTTErrorCode:
        """paho reads a packet in three pieces or more; one that has come as a whole is given to it as read."""
        link = self.socket()
        if isinstance(link, BufferedSocket) and not self._in_packet["command"] and (whole := link.packet()):
            read = self._in_packet
            read["command"], read["packet"] = whole[0], bytearray(whole[1])
            read["have_remaining"], read["remaining_length"] = 1, len(whole[1])
        return super()._packet_read()

    def _handle_publish(self) -> MQTTErrorCode:
        """Most messages have the same few properties; paho reads them anew in each."""
        command, packet = self._in_packet["command"], bytes(self._in_packet["packet"])
        qos, topic_end = command >> 1 & 3, 2 + int.from_bytes(packet[:2], "big")
        at = body = topic_end + 2 * (qos > 0)
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            size = packet[at] if at < len(packet) else 0
            body = at + 1 + size if size < 128 else len(packet) + 1
        if qos > 1 or topic_end == 2 or body > len(packet):
            return super()._handle_publish()
        message = MQTTMessage(int.from_bytes(packet[topic_end:at], "big"), packet[2:topic_end])
        try:
            message.properties = _properties(packet[at:body])
        except _MALFORMED:  # paho finds it too, and says so
            return super()._handle_publish()
        message.qos, message.retain, message.payload = qos, bool(command & 1), packet[body:]
        self._handle_on_message(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS if self._manual_ack or not qos else self._send_puback(message.mid)

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        """Most acknowledgements say the same; paho makes a table of all reasons for each."""
        packet, mqtt5 = bytes(self._in_packet["packet"]), self._protocol == MQTTProtocolVersion.MQTTv5
        if cmd != "PUBACK" or not mqtt5 or not (len(packet) in (2, 3) or packet[3:] == b"\0"):
            return super()._handle_pubackcomp(cmd)
        answer = _puback(packet[2] if len(packet) > 2 else 0)
        if answer is None:
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(packet[:2], "big")
        with self._out_message_mutex:
            return self._do_on_publish(mid, *answer) if mid in self._out_messages else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _create_socket(self) -> Any:
        return BufferedSocket(super()._create_socket())  # type: ignore[arg-type]  # no WebSocket is asked for

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._bell, 1)

    def _serves(self, link: BufferedSocket) -> bool:
        return self.socket() is link

    def _serve(self) -> None:
        link = self.socket()
        if not isinstance(link, BufferedSocket):
            return
        fd, poll, blocked = link.fileno(), select.poll(), False
        look_s = max(0.5, self.keepalive / 8)
        due_s, quiet_until_s = time.monotonic() + look_s, 0.0
        poll.register(self._bell, select.POLLIN)
        while self._serves(link):
            # Asleep from here on, and only then a look at what there is to write: a message that comes now rings.
            self._asleep = True
            if self.want_write() and not blocked:
                self._asleep = False
                self.loop_write()
                blocked = self.want_write()
                now_s = time.monotonic()
                if not 0 < len(self._out_messages) <= self.few:
                    quiet_until_s = now_s
                    continue
                if now_s < quiet_until_s:  # awake anyhow: whatever answers the message before is heard now
                    self._hear(link)
                quiet_until_s = now_s + GATHER_S
                continue
            self.on_rest()
            wait_s = quiet_until_s - time.monotonic()
            if blocked or wait_s <= 0:
                poll.register(fd, select.POLLIN | select.POLLOUT if blocked else select.POLLIN)
                wait_s = 0.0 if link.pending() else look_s
            else:
                poll.register(fd, 0)
            events = dict(poll.poll(1000 * wait_s))
            self._asleep = False
            if self._bell in events:
                os.eventfd_read(self._bell)
            if events.get(fd, 0) & ~select.POLLOUT or link.pending():
                self._hear(link)
            blocked = blocked and not events.get(fd, 0) & select.POLLOUT
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + look_s
                self.loop_misc()
        self.on_rest()

    def _hear(self, link: BufferedSocket) -> None:
        self.loop_read()
        for _ in range(AT_ONCE):
            if not (self._serves(link) and link.pending()):
                break
            self.loop_read()


@lru_cache(256)
def _puback(code: int) -> tuple[ReasonCode, Properties] | None:
    """A reason and no properties; None if there is no such reason."""
    reason = ReasonCode(PacketTypes.PUBACK)
    try:
        reason.unpack(bytes([code]))
    except (KeyError, ValueError):
        return None
    return reason, Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]  # paho has no types here


@lru_cache(256)
def _properties(packed: bytes) -> Properties:
    """Of a message, with their length. Raises what ``_MALFORMED`` lists."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
    if packed:
        properties.unpack(packed)  # type: ignore[no-untyped-call]  # paho has no types here
    return properties


def _length(data: bytes) -> tuple[int | None, int]:
    """A packet's length and the number of its bytes; None while they have not all come."""
    size = 0
    for count, byte in enumerate(data):
        size |= (byte & 127) << 7 * count
        if byte < 128:
            return size, count + 1
    return None, 0


def _later(*_: Any) -> None:
    """Keeps paho from writing on the thread that publishes: ours is woken instead."""
