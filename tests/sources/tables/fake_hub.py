"""A hub on loopback: one dataset with commits, branches and tags, served by the paths that the real client asks for.

Only the border is faked: `huggingface_hub` and `datasets` run as they are, in a process whose `HF_ENDPOINT` is this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

Files = Mapping[str, bytes]


class Hub:
    """`refs` names a commit by branch or tag; `commits` holds the files of each. `asked` are the paths of requests."""

    def __init__(self, name: str, refs: dict[str, str], commits: Mapping[str, Files]) -> None:
        self.name, self.refs, self.commits = name, refs, commits
        self.asked: list[str] = []
        self.endpoint = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.asked.append(path)
        if found := re.fullmatch(rf"/api/datasets/{self.name}(?:/revision/(.+))?", path):
            return self._info(found[1] or "main")
        if path == f"/api/datasets/{self.name}/refs":
            branches = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": c} for r, c in self.refs.items()]
            return _json({"branches": branches, "tags": [], "converts": []})
        if found := re.fullmatch(rf"/api/datasets/{self.name}/paths-info/([^/]+)", path):
            return self._paths(found[1], body)
        if found := re.fullmatch(rf"/api/datasets/{self.name}/tree/([^/]+)/?(.*)", path):
            return _json([_entry(file, data) for file, data in self._files(found[1]).items()])
        if found := re.fullmatch(rf"/datasets/{self.name}/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], found[2])
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _files(self, revision: str) -> Files:
        return self.commits.get(self.refs.get(revision, revision), {})

    def _info(self, revision: str) -> tuple[int, dict[str, str], bytes]:
        commit = self.refs.get(revision, revision)
        if commit not in self.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        siblings = [{"rfilename": file} for file in self.commits[commit]]
        return _json({"id": self.name, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _paths(self, revision: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        files = self._files(revision)
        wanted = json.loads(body)["paths"]
        return _json([_entry(file, files[file]) for file in wanted if file in files])

    def _file(self, revision: str, name: str) -> tuple[int, dict[str, str], bytes]:
        files = self._files(revision)
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        commit = self.refs.get(revision, revision)
        headers = {"ETag": f'"{sha1(files[name]).hexdigest()}"', "X-Repo-Commit": commit}
        return 200, headers, files[name]


def _json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _entry(file: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": file, "size": len(data), "oid": sha1(data).hexdigest()}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, data = hub.answer(unquote(self.path.partition("?")[0]), body)
            if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                status, data = 206, data[int(span[1]) : int(span[2]) + 1 if span[2] else None]
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
