"""A web server on this machine, with range requests, faults and a count of what was asked."""

import contextlib
import http.server
import io
import re
import threading
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; the server says which faults to make."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send_head(self):
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        if server.failures > 0:
            server.failures -= 1
            self.send_error(500)
            return None
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().send_head()
        data, span = path.read_bytes(), re.fullmatch(
            r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")
        )  # fmt: skip
        status, first = 200, 0
        total = len(data)
        if span is not None and server.ranges:
            status, first = 206, int(span[1])
            data = data[first : int(span[2]) + 1]
        self.send_response(status)
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            last = first + len(data) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("Content-Length", str(len(data)))
        if data.startswith(b"<html"):
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        return io.BytesIO(data)


@contextlib.contextmanager
def serving(folder: Path, *, ranges: bool = True):
    """Yield a server; its `url` ends without a slash."""

    def handler(*args):
        return Handler(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.ranges, server.failures, server.requests = ranges, 0, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
