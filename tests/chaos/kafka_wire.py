"""What a worker says to Kafka, request by request, and which of its steps each belongs to."""

from __future__ import annotations

import struct

_OFFSET_COMMIT, _FETCH, _PRODUCE = 8, 1, 0
_OF_THE_RELAY = {22: "InitProducerId", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit"}
_HEADER_BYTES = 12  # size, api key, version, correlation id


class Frames:
    """Cuts a stream into Kafka's frames, each with its size in front."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The frames that are whole now."""
        self._rest += piece
        found = []
        while len(self._rest) >= 4 and len(self._rest) >= (length := 4 + struct.unpack_from(">i", self._rest)[0]):
            found.append(self._rest[:length])
            self._rest = self._rest[length:]
        return found


def correlation_of(answer: bytes) -> int:
    """The id of the request that a frame answers."""
    return int(struct.unpack_from(">i", answer, 4)[0])


def request_of(frame: bytes) -> tuple[int, str | None]:
    """The correlation id of a request, and the step that it is."""
    _, api_key, _, correlation = struct.unpack_from(">ihhi", frame)
    return correlation, _step(api_key, frame[_HEADER_BYTES:])


def _step(api_key: int, body: bytes) -> str | None:
    if api_key == _FETCH:
        return "poll"
    if api_key == _OFFSET_COMMIT:
        return "offset commit"
    if api_key == _PRODUCE:
        return "dead letter" if b"dead-letters" in body else "relay: Produce"
    if api_key in _OF_THE_RELAY and b"-relay" in body:
        return f"relay: {_OF_THE_RELAY[api_key]}"
    return None
