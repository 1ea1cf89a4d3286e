"""chDB behind as much of ClickHouse's HTTP interface as rotel's exporter needs. Runs in the peers' own environment.

`python chdb_server.py FOLDER`: prints its port; an insert is answered when chDB has it; GET /count says how many rows.
"""

import http.server
import re
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chdb import session

TABLE = """
Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String, TraceState String, SpanName String,
SpanKind String, ServiceName String, ResourceAttributes Map(String, String), ScopeName String, ScopeVersion String,
SpanAttributes Map(String, String), Duration UInt64, StatusCode String, StatusMessage String,
`Events.Timestamp` Array(DateTime64(9)), `Events.Name` Array(String), `Events.Attributes` Array(Map(String, String)),
`Links.TraceId` Array(String), `Links.SpanId` Array(String), `Links.TraceState` Array(String),
`Links.Attributes` Array(Map(String, String))
"""
FOLDER = Path(sys.argv[1])
CHDB = session.Session(str(FOLDER / "chdb"))
CHDB.query("create database if not exists otel")
CHDB.query(
    f"create table if not exists otel.otel_traces ({TABLE}) engine MergeTree "
    "partition by toDate(Timestamp) order by (ServiceName, SpanName, Timestamp)"
)
ONE_AT_A_TIME = threading.Lock()


class Interface(http.server.BaseHTTPRequestHandler):
    """Takes inserts of RowBinary, in chunks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        columns = re.search(r"\((.*)\) FORMAT RowBinary$", query)
        assert columns, query
        with ONE_AT_A_TIME:
            batch = FOLDER / "batch.bin"
            batch.write_bytes(body)
            structure = TABLE.replace("\n", " ").strip()
            CHDB.query(f"insert into otel.otel_traces select * from file('{batch}', 'RowBinary', '{structure}')")
        self._answer(b"")

    def do_GET(self) -> None:
        with ONE_AT_A_TIME:
            self._answer(str(CHDB.query("select count() from otel.otel_traces", "CSV")).encode())

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Interface)
print(server.server_address[1], flush=True)
server.serve_forever()
