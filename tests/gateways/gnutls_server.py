"""A small S3-like gateway that ends TLS with GnuTLS: gnutls_server.py ADDRESS CERTIFICATE KEY.

The library is called directly, a thread a connection. It keeps what is put in memory and gives it back. Of each second
reply head and body are corked, so that both go out together."""

import ctypes
import socket
import sys
import threading

SERVER, PEM, CERTIFICATE, WRITE = 1, 1, 1, 1
AGAIN, INTERRUPTED = -28, -52
WAIT = 1

tls = ctypes.CDLL("libgnutls.so.30")
tls.gnutls_record_recv.restype = tls.gnutls_record_send.restype = ctypes.c_ssize_t
tls.gnutls_record_recv.argtypes = tls.gnutls_record_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
for name in ["gnutls_handshake", "gnutls_deinit", "gnutls_record_cork", "gnutls_set_default_priority"]:
    getattr(tls, name).argtypes = [ctypes.c_void_p]
tls.gnutls_record_uncork.argtypes = [ctypes.c_void_p, ctypes.c_uint]
tls.gnutls_bye.argtypes = [ctypes.c_void_p, ctypes.c_int]
tls.gnutls_transport_set_int2.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
tls.gnutls_credentials_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
tls.gnutls_certificate_set_x509_key_file.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]


class Connection:
    def __init__(self, stream, credentials):
        self.stream, self.session, self.rest = stream, ctypes.c_void_p(), b""
        tls.gnutls_init(ctypes.byref(self.session), SERVER)
        tls.gnutls_set_default_priority(self.session)
        tls.gnutls_credentials_set(self.session, CERTIFICATE, credentials)
        tls.gnutls_transport_set_int2(self.session, stream.fileno(), stream.fileno())
        self.room = ctypes.create_string_buffer(20000)

    def handshake(self):
        while (result := tls.gnutls_handshake(self.session)) < 0:
            if result not in (AGAIN, INTERRUPTED):
                return False
        return True

    def more(self):
        while (got := tls.gnutls_record_recv(self.session, self.room, len(self.room))) in (AGAIN, INTERRUPTED):
            pass
        self.rest += self.room.raw[: max(got, 0)]
        return got > 0

    def send(self, data):
        while data:
            sent = tls.gnutls_record_send(self.session, data, len(data))
            if sent < 0:
                raise OSError(f"gnutls_record_send: {sent}")
            data = data[sent:]

    def request(self):
        while b"\r\n\r\n" not in self.rest:
            if not self.more():
                return None
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", "0"))
        while len(self.rest) < length:
            if not self.more():
                return None
        body, self.rest = self.rest[:length], self.rest[length:]
        method, target, _ = lines[0].split(" ")
        return method, target.split("?")[0], body

    def serve(self, objects):
        corked = False
        while (request := self.request()) is not None:
            method, path, body = request
            status, reply = "200 OK", b""
            if method == "PUT":
                objects[path] = body
            elif path in objects:
                reply = objects[path]
            else:
                status, reply = "404 Not Found", b"NoSuchKey"
            corked = not corked
            if corked:
                tls.gnutls_record_cork(self.session)
            self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(reply)}\r\n\r\n".encode())
            if method != "HEAD":
                self.send(reply)
            if corked:
                tls.gnutls_record_uncork(self.session, WAIT)
        tls.gnutls_bye(self.session, WRITE)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    credentials = ctypes.c_void_p()
    tls.gnutls_certificate_allocate_credentials(ctypes.byref(credentials))
    result = tls.gnutls_certificate_set_x509_key_file(credentials, sys.argv[2].encode(), sys.argv[3].encode(), PEM)
    if result < 0:
        sys.exit(f"the certificate: {result}")
    objects = {"/": b"ready"}

    def run(stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(stream, credentials)
        try:
            if connection.handshake():
                connection.serve(objects)
        except OSError:
            pass
        tls.gnutls_deinit(connection.session)
        stream.close()

    listener = socket.create_server((host, int(port)), backlog=128)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=run, args=(stream,), daemon=True).start()


main()
