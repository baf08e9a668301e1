"""A Hugging Face hub of one process: what huggingface_hub asks for when cells are pushed and pulled. No LFS, no Xet."""

import hashlib
import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """`repositories`: name to files; `private` as they were made; `token`: who may write."""

    token: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: int = 0

    def sha(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(repr(sorted((path, hash(data)) for path, data in files.items())).encode()).hexdigest()


def answering(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """A handler over `hub`."""

    class Answer(BaseHTTPRequestHandler):
        def reply(self, body: Any = b"", status: int = 200, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        @property
        def here(self) -> str:
            return f"http://{self.headers['Host']}"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/":
                self.reply()
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/[^/]+|/revision/[^/]+)?(/.*)?", path):
                self.about(found[1], found[2] or "")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                data = hub.repositories[found[1]][found[2]]
                tag = hashlib.sha1(data).hexdigest()
                self.reply(data, ETag=f'"{tag}"', X_Repo_Commit=hub.sha(found[1]))
            else:
                self.reply({"error": path}, 404)

        def about(self, name: str, what: str) -> None:
            if name not in hub.repositories:
                self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            files = hub.repositories[name]
            if what.startswith("/tree"):
                rows = [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()]
                self.reply(rows)
            else:
                siblings = [{"rfilename": path} for path in files]
                self.reply({"id": name, "sha": hub.sha(name), "siblings": siblings, "private": hub.private[name]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.reply({"error": "Invalid credentials"}, 401)
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                if name in hub.repositories:
                    self.reply({"error": "exists", "url": f"{self.here}/{name}"}, 409)
                else:
                    hub.repositories[name], hub.private[name] = (
                        {},
                        asked.get("private", asked.get("visibility") == "private"),
                    )
                    self.reply({"url": f"{self.here}/{name}"})
            elif self.path == "/api/validate-yaml":
                self.reply({"errors": [], "warnings": []})
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", unquote(self.path)):
                paths = [file["path"] for file in json.loads(body)["files"]]
                self.reply(
                    {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
                )
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", unquote(self.path)):
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "file":
                        hub.repositories[found[1]][line["value"]["path"]] = b64decode(line["value"]["content"])
                hub.commits += 1
                self.reply(
                    {"commitUrl": f"{self.here}/{found[1]}/commit/{hub.sha(found[1])}", "commitOid": hub.sha(found[1])}
                )
            else:
                self.reply({"error": self.path}, 404)

        def log_message(self, format: str, *args: object) -> None: ...

    return Answer
