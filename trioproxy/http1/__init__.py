"""HTTP/1.1 without I/O: heads, body framing, header rewriting and our own replies, as pure functions."""
