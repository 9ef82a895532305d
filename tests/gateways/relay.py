"""What moves bytes between a TLS stream and the plain one on its other side."""

import select

# OpenSSL makes several records at once of 64 KiB and more, where the cipher lets it.
PIECE = 256 * 1024


def relay(stream, inner):
    """Until one of them has no more."""
    while True:
        ready = [stream] if stream.pending() else select.select([stream, inner], [], [])[0]
        for one, other in [(stream, inner), (inner, stream)]:
            if one in ready:
                piece = one.recv(PIECE)
                if not piece:
                    return
                other.sendall(piece)
