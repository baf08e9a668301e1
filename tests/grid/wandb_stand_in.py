"""A stand-in for W&B's server: its GraphQL on this machine, as far as reports, runs and `wandb agent` need it."""

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.training.test_wandb_runs import inspect

USER = "somebody"


@dataclass(frozen=True)
class StoredRun:
    """A run as W&B would have it."""

    group: str
    id: str
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    @classmethod
    def uploaded(cls, folder: Path, group: str) -> "StoredRun":
        """One that W&B has logged offline."""
        found = json.loads(inspect(folder, "--summary"))
        return cls(group, found["run_id"], found["name"], found["config"], found["summary"])

    def passes(self, key: str, asked: Any) -> bool:
        """Whether a filter of the server lets it through."""
        found = self.group if key == "group" else self.config.get(key.removeprefix("config."))
        return found is not None and found >= asked["$gte"] if isinstance(asked, dict) else bool(found == asked)

    @property
    def node(self) -> dict[str, Any]:
        config = json.dumps({key: {"value": value} for key, value in self.config.items()})
        known = {"id": self.id, "name": self.id, "displayName": self.name, "group": self.group, "config": config}
        return {**known, "summaryMetrics": json.dumps(self.summary), "systemMetrics": "{}", "state": "finished"}


@dataclass(frozen=True)
class StandIn:
    """A server with one project; `runs` from old to new. `saved`: the reports it was sent."""

    project: str
    runs: list[StoredRun]
    saved: list[dict[str, Any]]
    synced: list[tuple[str, Any]] = field(default_factory=list)  # what runs ask and send, in order
    command: list[str] = field(default_factory=list)  # of its one sweep
    due: list[dict[str, Any]] = field(default_factory=list)  # what a `wandb agent` is told to run, one at a time

    def answer(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            self.saved.append({**asked, "spec": json.loads(asked["spec"])})
            project = {"id": "1", "name": asked["projectName"], "entityName": asked["entityName"]}
            view = {key: asked[key] for key in ("name", "displayName", "description", "spec", "type")}
            return {"upsertView": {"view": {**view, "id": "Vmlldzox", "project": project}, "inserted": True}}
        if "RunResumeStatus" in query or "UpsertBucket" in query:
            return self._resumed(query, asked)
        if "ArtifactType" in query:  # a new one
            return {"project": None}
        if artifact := self._artifact(query, asked):
            return artifact
        if "SweepWithRuns" in query:
            sweep = {"name": asked["sweep"], "state": "RUNNING", "config": json.dumps({"command": self.command})}
            return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}
        if "CreateAgent" in query:
            return {"createAgent": {"agent": {"id": "1"}}}
        if "Heartbeat" in query:
            told = [self.due.pop(0)] if self.due and not json.loads(asked["runState"]) else []
            return {"agentHeartbeat": {"agent": {"id": "1"}, "commands": json.dumps(told)}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": os.environ["WANDB_BASE_URL"]} for name in asked["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "query Runs" in query:
            if (asked["project"], asked["order"]) != (self.project, "-created_at"):
                return {"project": None}
            filters = json.loads(asked["filters"]).items()
            found = [run for run in reversed(self.runs) if all(run.passes(*one) for one in filters)]
            page = {"edges": [{"node": run.node, "cursor": ""} for run in found], "pageInfo": {"hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(found), "runs": page}}
        if "ProjectInternalId" in query:
            return {"project": {"id": "1", "internalId": "1"}}
        known = {"id": "1", "name": self.project, "entityName": USER, "createdAt": "", "isBenchmark": False}
        projects = {"edges": [{"node": {**known, "user": None}, "cursor": ""}], "pageInfo": {"hasNextPage": False}}
        viewer = {"id": "1", "entity": USER, "username": USER, "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "models": {**projects, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def rows(self, run: str) -> list[dict[str, Any]]:
        """The history of a run that it was sent."""
        return [json.loads(line) for kind, sent in self.synced if kind == run for line in sent]

    def _resumed(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A run that begins or goes on."""
        run, known = asked["name"], any(kind == "run" for kind, _ in self.synced)
        bucket: dict[str, Any] = {"id": "1", "name": run, "displayName": "", "config": asked.get("config")}
        of, rows = {"id": "1", "name": self.project, "entity": {"id": "1", "name": USER}}, self.rows(run)
        if "UpsertBucket" in query:
            self.synced.append(("run", asked))
            bucket |= {"description": "", "sweepName": None, "project": of, "historyLineCount": len(rows)}
            return {"upsertBucket": {"bucket": bucket, "inserted": not known}}
        self.synced.append(("resume", run))
        counts = {"logLineCount": 0, "historyLineCount": len(rows), "eventsLineCount": 0}
        tails = {"eventsTail": "[]", "summaryMetrics": "{}", "config": "{}", "wandbConfig": "{}"}
        tails["historyTail"] = json.dumps([json.dumps(row) for row in rows[-1:]])
        return {"model": {**of, "bucket": {**bucket, **counts, **tails, "tags": [], "notes": None}} if known else None}

    def _artifact(self, query: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """An artifact that a run logs: it is made, then its manifest, a file, and then it is committed."""
        url = os.environ["WANDB_BASE_URL"]
        if "mutation CreateArtifact " in query:
            self.synced.append(("artifact", asked["input"]))
            made = {"id": "a1", "state": "PENDING", "artifactSequence": {"id": "s1", "latestArtifact": None}}
            return {"createArtifact": {"artifact": made}}
        if "ArtifactManifest" in query:
            key = "createArtifactManifest" if "CreateArtifactManifest" in query else "updateArtifactManifest"
            file = {"id": "f1", "name": "m", "displayName": "m", "uploadUrl": url + "/manifest", "uploadHeaders": []}
            return {key: {"artifactManifest": {"id": "m1", "file": file}}}
        if "CommitArtifact" in query:
            return {"commitArtifact": {"artifact": {"id": "a1", "digest": ""}}}
        return None

    @contextmanager
    def online(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Within it wandb talks to this server; `folder` for what it writes."""
        answer, synced = self.answer, self.synced

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content, sent = self.rfile.read(int(self.headers["Content-Length"])), b"{}"
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                if self.path.endswith("/file_stream"):
                    synced.append(("files", told := json.loads(content)))
                    if history := told.get("files", {}).get("wandb-history.jsonl"):
                        synced.append((self.path.split("/")[-2], history["content"]))
                if self.path == "/graphql":  # the rest is about wandb's own health
                    body = json.loads(content)
                    sent = json.dumps({"data": answer(body["query"], body.get("variables") or {})}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def do_PUT(self) -> None:  # a file
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/manifest":
                    synced.append(("manifest", json.loads(content)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, monkeypatch.context() as patch:
            Thread(target=server.serve_forever).start()
            patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
            patch.setenv("WANDB_API_KEY", 40 * "a")
            patch.setenv("WANDB_MODE", "online")
            for place in ("CONFIG", "CACHE", "DATA"):
                patch.setenv(f"WANDB_{place}_DIR", str(folder / "wandb files"))
            try:
                yield
            finally:
                server.shutdown()
