"""
A stand-in for the Hub: what `huggingface_hub` asks of it over HTTP, on this machine and in memory.

Clients find it by `HF_ENDPOINT`; with `HF_HUB_DISABLE_XET=1` they send and fetch files over plain HTTP. It can cut
answers short and spoil bytes on their way, as networks do.
"""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


class HubStandIn(ThreadingHTTPServer):
    """
    Repositories and their commits.

    `repos` maps `models/org/name` or `datasets/org/name` to branches and commits to files; `cut` and `spoil` name
    files (the end of their path) of which `num_faults` more answers stop half-way, or have the byte at `spoilt_place`
    changed.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, dict]] = {}
        self.lfs: dict[str, bytes] = {}
        self.cut, self.spoil, self.spoilt_place, self.num_faults = None, None, -1, 0
        self.asked: list[str] = []

    def create(self, repo: str):
        """Makes an empty repository."""
        self.repos[repo] = {"branches": {}, "commits": {}}
        self.commit(repo, "main", {})

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Adds a commit that holds just these files; returns its hash."""
        made = self.repos[repo]
        earlier = made["branches"].get(branch, "")
        content = [f"{path}\0".encode() + file for path, file in sorted(files.items())]
        sha = hashlib.sha1(b"".join([earlier.encode(), str(len(made["commits"])).encode(), *content])).hexdigest()
        made["commits"][sha], made["branches"][branch] = files, sha
        return sha

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a branch or a commit."""
        made = self.repos[repo]
        return made["commits"][made["branches"].get(revision, revision)]


@contextmanager
def running():
    """The stand-in, serving in a thread of its own."""
    hub = HubStandIn()
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def etag(path: str, content: bytes) -> str:
    """As of the Hub: SHA-256 of weights and archives, git's hash of others."""
    if path.endswith((".safetensors", ".tar", ".bin")):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._route("GET")

    def do_HEAD(self):
        self._route("HEAD")

    def do_POST(self):
        self._route("POST")

    def do_PUT(self):
        self._route("PUT")

    def _route(self, method):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append(f"{method} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        repo = r"(?P<repo>(?:models|datasets)/[\w.-]+/[\w.-]+)"
        routes = [
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda body: self._json({"errors": [], "warnings": []})),
            ("POST", rf"/api/{repo}/branch/(?P<branch>.+)", self._branch),
            ("POST", rf"/api/{repo}/preupload/(?P<revision>.+)", self._preupload),
            ("POST", rf"/api/{repo}/commit/(?P<revision>.+)", self._commit),
            ("POST", rf"/api/{repo}/paths-info/(?P<revision>.+)", self._paths_info),
            ("POST", r"/(?P<repo>.+)\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/lfs/(?P<oid>\w+)", self._upload),
            ("GET", rf"/api/{repo}/tree/(?P<revision>[^/]+)(?:/(?P<below>.+))?", self._tree),
            ("GET", rf"/api/{repo}(?:/revision/(?P<revision>.+))?", self._info),
            (
                "GET|HEAD",
                r"/(?P<repo>(?:datasets/)?[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
                self._file,
            ),
        ]
        for methods, pattern, answer in routes:
            match = re.fullmatch(pattern, path)
            if match and method in methods.split("|"):
                return answer(body, **match.groupdict())
        self._error(404, "RepoNotFound")

    def _send(self, status, body=b"", **headers):
        self.send_response(status)
        headers = {"Content-Length": len(body), **{name.replace("_", "-"): value for name, value in headers.items()}}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value, status=200):
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _error(self, status, code):
        self._send(status, b"{}", X_Error_Code=code, X_Error_Message=code, Content_Type="application/json")

    def _find(self, repo, revision):
        """Commit and its files, or `None` after an error was sent."""
        made = self.server.repos.get(repo)
        if made is None:
            return self._error(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        sha = made["branches"].get(revision, revision)
        if sha not in made["commits"]:
            return self._error(404, "RevisionNotFound")
        return sha, made["commits"][sha]

    def _create(self, body):
        asked = json.loads(body)
        name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
        repo = f"{asked.get('type', 'model')}s/{name}"
        if repo in self.server.repos:
            return self._json({"error": "You already created this repo", "url": f"{self.server.url}/{name}"}, 409)
        self.server.create(repo)
        self._json({"url": f"{self.server.url}/{name}", "name": name, "id": name})

    def _branch(self, body, repo, branch):
        branches = self.server.repos[repo]["branches"]
        if branch in branches:
            return self._error(409, "Conflict")
        branches[branch] = branches["main"]
        self._json({})

    def _preupload(self, body, repo, revision):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if len(etag(file["path"], b"")) == 64 else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, body, repo):
        objects = [
            {**file, "actions": {"upload": {"href": f"{self.server.url}/lfs/{file['oid']}"}}}
            for file in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, body, oid):
        self.server.lfs[oid] = body
        self._send(200)

    def _commit(self, body, repo, revision):
        if self._find(repo, revision) is None:
            return
        files = dict(self.server.files(repo, revision))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.server.commit(repo, revision, files)
        self._json({"commitUrl": f"{self.server.url}/{repo.partition('/')[2]}/commit/{sha}", "commitOid": sha})

    def _info(self, body, repo, revision):
        if (found := self._find(repo, revision or "main")) is None:
            return
        sha, files = found
        name = repo.partition("/")[2]
        info = {
            "_id": sha[:24],
            "id": name,
            "author": name.partition("/")[0],
            "sha": sha,
            "private": False,
            "gated": False,
        }
        if "README.md" in files and repo.startswith("models/"):
            header = files["README.md"].decode()
            for key in ("pipeline_tag", "library_name"):
                if match := re.search(rf"^{key}: (.+)$", header, flags=re.MULTILINE):
                    info[key] = match.group(1)
        tags = {"disabled": False, "downloads": 0, "likes": 0, "tags": []}
        self._json({**info, **tags, "siblings": [{"rfilename": path} for path in files]})

    @staticmethod
    def _entry(path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": etag(path, content)[:40]}
        if len(etag(path, content)) == 64:
            entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 134}
        return entry

    def _tree(self, body, repo, revision, below):
        if (found := self._find(repo, revision)) is None:
            return
        start = f"{below}/" if below else ""
        entries = [self._entry(path, content) for path, content in found[1].items() if path.startswith(start)]
        if "recursive=true" not in self.path.lower():
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(start)]
        self._json(entries) if entries or not below else self._error(404, "EntryNotFound")

    def _paths_info(self, body, repo, revision):
        if (found := self._find(repo, revision)) is None:
            return
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(body)["paths"]
        else:
            paths = [
                unquote(part[6:].replace("+", " ")) for part in body.decode().split("&") if part.startswith("paths=")
            ]
        self._json([self._entry(path, found[1][path]) for path in paths if path in found[1]])

    def _file(self, body, repo, revision, file):
        found = self._find(repo if repo.startswith("datasets/") else f"models/{repo}", revision)
        if found is None:
            return
        sha, files = found
        if file not in files:
            return self._send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content, hub = files[file], self.server
        headers = {"ETag": f'"{etag(file, content)}"', "X_Repo_Commit": sha, "Accept_Ranges": "bytes"}
        if self.command == "GET" and hub.num_faults and hub.spoil and file.endswith(hub.spoil):
            hub.num_faults -= 1
            content = bytearray(content)
            content[hub.spoilt_place] ^= 1
        status, wanted = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        if self.command == "GET" and hub.num_faults and hub.cut and file.endswith(hub.cut):
            hub.num_faults -= 1
            self.close_connection = True
            return self._send(status, content[: len(content) // 2], **{**headers, "Content_Length": len(content)})
        self._send(status, content, **headers) if self.command == "GET" else self._head(status, content, headers)

    def _head(self, status, content, headers):
        self._send(status, **{**headers, "Content_Length": len(content)})
