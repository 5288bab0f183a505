"""Where the records of a TLS stream begin and end, read from outside (RFC 8446, 5.1; RFC 5246, 6.2.1): no key is needed."""

from __future__ import annotations

from typing import NamedTuple

APPLICATION_DATA = 23
HEADER_BYTES = 5
_CONTENT_TYPES = range(20, 25)  # change_cipher_spec, alert, handshake, application_data, heartbeat
_LONGEST = (1 << 14) + 2048  # TLS 1.2 allows a ciphertext 2048 bytes of expansion, TLS 1.3 256


class Record(NamedTuple):
    """Offsets count from the first byte of the stream; `start` is the header's, `end` is one past the last byte."""

    content_type: int
    start: int
    end: int

    @property
    def middle(self) -> int:
        """An offset within the ciphertext."""
        return (self.start + HEADER_BYTES + self.end) // 2


class Records:
    """Follows one direction of a connection, chunk by chunk.

    A stream that is no TLS (`broken`) has no records any more; its bytes are still counted.
    """

    def __init__(self) -> None:
        self.position = 0
        """Bytes seen so far."""
        self.boundary = 0
        """Where the record that `position` lies in ends and the next one begins."""
        self.broken = False
        self._header = b""

    def feed(self, data: bytes) -> list[Record]:
        """The records whose header is complete with this chunk."""
        found: list[Record] = []
        begin, self.position = self.position, self.position + len(data)
        while not self.broken and self.boundary < self.position:
            # A header may be spread over several chunks: what came of it earlier is kept.
            have = len(self._header)
            offset = self.boundary + have - begin
            self._header += data[offset : offset + HEADER_BYTES - have]
            if len(self._header) < HEADER_BYTES:
                break
            content_type, length = self._header[0], int.from_bytes(self._header[3:])
            self._header = b""
            if content_type not in _CONTENT_TYPES or length > _LONGEST:
                self.broken = True
                break
            record = Record(content_type, self.boundary, self.boundary + HEADER_BYTES + length)
            found.append(record)
            self.boundary = record.end
        return found


class Conversation:
    """Tells from both directions when the handshake is through and the application speaks.

    In TLS 1.3 most of the handshake wears the type of application data (RFC 8446, 5.2): the server's part comes before the
    client has sent any such record, and the client's first one is its Finished. In TLS 1.2 nothing does. A client that speaks
    first is taken for granted: HTTP's does.
    """

    def __init__(self) -> None:
        self._disguised: bool | None = None
        self._server_sent = False
        self.speaking = False
        """The client has sent application data."""

    def from_client(self, record: Record) -> bool:
        """Whether this record of the client holds application data."""
        if record.content_type != APPLICATION_DATA:
            return False
        if self._disguised is None:
            self._disguised = self._server_sent
            self.speaking = not self._disguised
        else:
            self.speaking = True
        return self.speaking

    def from_server(self, record: Record) -> bool:
        """Whether this record of the server holds application data, or a session ticket sent just before."""
        self._server_sent = self._server_sent or record.content_type == APPLICATION_DATA
        return self.speaking and record.content_type == APPLICATION_DATA
