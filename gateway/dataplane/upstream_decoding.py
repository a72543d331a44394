"""How is a compressed answer read? Streaming gzip and deflate, in bounded steps.

Pure. We ask for `identity`; some providers and proxies compress all the same.
"""

from __future__ import annotations

import zlib

from gateway.dataplane.upstream_errors import UpstreamError

MAX_STEP_BYTES = 1024 * 1024


class BodyDecoder:
    """Decodes one body. `decode` gives at most 1 MiB a step, so that a bomb meets the reader's limit first."""

    __slots__ = ("_inflate", "_is_raw_tried", "_pending", "is_begun")

    def __init__(self, encoding: str) -> None:
        is_gzip = encoding in ("gzip", "x-gzip")
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS if is_gzip else zlib.MAX_WBITS)
        # "deflate" means zlib (RFC 9110 8.4.1.2), but some servers send raw deflate.
        self._is_raw_tried = is_gzip
        self._pending = b""
        self.is_begun = False  # An empty body is a valid answer of any encoding.

    @property
    def has_pending(self) -> bool:
        """Whether another step is possible without more input."""
        return bool(self._pending)

    @property
    def is_finished(self) -> bool:
        """Whether the compressed stream has come to its own end."""
        return self._inflate.eof

    def decode(self, data: bytes) -> bytes:
        """Decode `data` after what is pending. Raises UpstreamError (`broken`) when it is not what it says."""
        data = self._pending + data if self._pending else data
        self._pending = b""
        if self._inflate.eof or not data:
            return b""
        self.is_begun = True
        try:
            decoded = self._inflate.decompress(data, MAX_STEP_BYTES)
        except zlib.error:
            if self._is_raw_tried:
                raise UpstreamError("broken", "The provider's compressed answer is damaged.") from None
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            self._is_raw_tried = True
            return self.decode(data)
        self._is_raw_tried = True
        self._pending = self._inflate.unconsumed_tail
        return decoded


def decoder_for(encoding: str) -> BodyDecoder | None:
    """The decoder of a content-encoding, None for identity. Raises UpstreamError (`bad_answer`) for others."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return BodyDecoder(encoding)
    raise UpstreamError("bad_answer", "The provider compressed its answer in a way that was not asked for.")
