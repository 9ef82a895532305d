"""Records what botocore really sends and receives, at the socket, next to what it was asked to do.

Import before the first connection, then `watch(events)` on a session's event system. `report()` prints a JSON line for
each exchange, in the order they began: see tests/src/call.rs for the fields.
"""

import json
import socket
import ssl
import threading

from urllib3.util import connection

_asked = threading.local()
_exchanges = []
_lock = threading.Lock()


class Exchange:
    """One request and its reply, as bytes pass."""

    def __init__(self, client):
        self.op = getattr(_asked, "op", None)
        self.params = getattr(_asked, "params", {})
        self.client = client
        self.sent = 0
        self.received = 0
        self.request_head = b""
        self.reply = b""
        self.status = None

    def on_sent(self, data):
        self.sent += len(data)
        if b"\r\n\r\n" not in self.request_head:
            self.request_head += bytes(data)

    def on_received(self, data):
        self.received += len(data)
        while self.status is None:
            self.reply += data
            data = b""
            head, end, rest = self.reply.partition(b"\r\n\r\n")
            if not end:
                return
            status = int(head.split(b" ", 2)[1])
            if status >= 200:
                self.status = status
            else:
                self.reply = rest

    def header(self, name):
        for line in self.request_head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
            field, _, value = line.partition(b":")
            if field.strip().lower() == name:
                return value.strip().decode("latin-1")
        return None

    def line(self):
        authorization = self.header(b"authorization") or ""
        _, signed, rest = authorization.partition("Credential=")
        return {
            "op": self.op,
            "bucket": self.params.get("Bucket"),
            "key": self.params.get("Key"),
            "status": self.status,
            "sent": self.sent,
            "received": self.received,
            "user_agent": self.header(b"user-agent"),
            "access_key": rest.partition("/")[0] if signed else None,
            "client": self.client,
        }


class Counting:
    """Of a connected socket: tells an exchange what passes. A request after a final reply begins the next."""

    exchange = None

    def _on_sent(self, data):
        if self.exchange is None or self.exchange.status is not None:
            host, port = self.getsockname()[:2]
            self.exchange = Exchange(f"{host}:{port}")
            with _lock:
                _exchanges.append(self.exchange)
        self.exchange.on_sent(data)

    def send(self, data, *flags):
        sent = super().send(data, *flags)
        self._on_sent(memoryview(data).cast("B")[:sent])
        return sent

    def recv(self, *args):
        data = super().recv(*args)
        if data:
            self.exchange.on_received(data)
        return data

    def recv_into(self, buffer, *args):
        length = super().recv_into(buffer, *args)
        if length:
            self.exchange.on_received(bytes(memoryview(buffer).cast("B")[:length]))
        return length


class CountingSocket(Counting, socket.socket):
    def sendall(self, data, *flags):
        # A copy of the head is all that is kept of it, so views of file content are cheap.
        self._on_sent(memoryview(data).cast("B"))
        return super().sendall(data, *flags)


class CountingTlsSocket(Counting, ssl.SSLSocket):
    """Takes the place of the plain one; counts plaintext. Its `sendall` is made of `send`."""


ssl.SSLContext.sslsocket_class = CountingTlsSocket
_connect = connection.create_connection


def _counting_connect(*args, **kwargs):
    plain = _connect(*args, **kwargs)
    timeout = plain.gettimeout()
    counting = CountingSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    counting.settimeout(timeout)
    return counting


connection.create_connection = _counting_connect


def watch(events):
    """Notes, in the thread that will send, which operation is asked for and with which parameters."""

    def asked(params, model, **_):
        _asked.op = model.name
        _asked.params = {name: params.get(name) for name in ("Bucket", "Key")}

    events.register_first("before-parameter-build.s3", asked)


def exchanges():
    return list(_exchanges)


def report():
    for exchange in _exchanges:
        print(json.dumps(exchange.line()))
