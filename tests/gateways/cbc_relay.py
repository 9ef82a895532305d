"""Speaks TLS for one client: `cbc_relay.py PORT GATEWAY_PORT`. With a cipher in CBC mode, its MAC inside, for which OpenSSL makes several
records at once. Says `ready` when it listens."""

import socket
import ssl
import sys

from relay import relay

NO_ENCRYPT_THEN_MAC = 1 << 19

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion.TLSv1_2
context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256")
context.options |= NO_ENCRYPT_THEN_MAC

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.settimeout(60)
print("ready", flush=True)
inner, _ = listener.accept()
outer = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[2]))))
relay(outer, inner)
