"""Ends TLS in front of a gateway, with a thread for each connection: `threads_front.py PORT BEHIND_PORT CERTIFICATE KEY [reads]`.

The library reads and writes the socket. With `reads` it is never asked for a handshake, which happens inside of the first read."""

import socket
import ssl
import sys
import threading

from relay import relay


def serve(stream, behind):
    inner = socket.create_connection(("127.0.0.1", behind))
    try:
        relay(stream, inner)
    except OSError:
        pass
    finally:
        inner.close()
        stream.close()


def main(port, behind, certificate, key, in_reads):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        stream, _ = listener.accept()

        def begin(stream=stream):
            try:
                wrapped = context.wrap_socket(stream, server_side=True, do_handshake_on_connect=not in_reads)
            except OSError:
                stream.close()
            else:
                serve(wrapped, behind)

        threading.Thread(target=begin, daemon=True).start()


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:] == ["reads"])
