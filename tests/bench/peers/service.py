"""A decision service as one would write it in Python: service.py GRAPH DATABASE SOCKET.

HTTP on a Unix socket; windows in dictionaries; the same int8 graph on onnxruntime; SQLite with full syncs. With
durable=false the answer leaves before the commit, which then happens in the same thread.
"""

import json
import os
import socketserver
import sqlite3
import sys
import time
from bisect import bisect_right
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler

import numpy as np
import onnxruntime as ort

graph, path, socket = sys.argv[1:4]
DAY = 86_400_000_000
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE events (id TEXT PRIMARY KEY, event TEXT, features BLOB, output REAL)")
customers = {}


def decide(event):
    begin = time.perf_counter_ns()
    now, amount = event["time"], event["values"]["amount"]
    times, amounts = customers.setdefault(event["entities"]["customer_id"], ([], []))
    times.append(now)
    amounts.append(amount)
    when = datetime.fromtimestamp(now / 1e6, timezone.utc)
    features = [amount, float(when.weekday() >= 5), float(when.hour <= 6)]
    for days in (1, 7, 30):
        window = amounts[bisect_right(times, now - days * DAY):]
        features += [len(window), sum(window) / len(window)]
    # As on the device of this benchmark, which has no snapshot of the fleet's terminals.
    row = np.array([features + [0.0] * 6], np.float32)
    output = float(session.run(None, {session.get_inputs()[0].name: row})[0][0][0])
    return row, output, (time.perf_counter_ns() - begin) // 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        row, output, latency = decide(event)
        durable = self.path.endswith("durable=true")
        if durable:
            self.store(event, row, output)
        result = {"id": event["id"], "status": "accepted", "version": 1, "output": output, "latency_us": latency}
        body = json.dumps({"results": [result]}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)
        if not durable:
            self.store(event, row, output)

    def store(self, event, row, output):
        values = (event["id"], json.dumps(event), row.tobytes(), output)
        database.execute("INSERT INTO events VALUES (?, ?, ?, ?)", values)

    def log_message(self, *arguments):
        pass


with socketserver.UnixStreamServer(socket, Handler) as server:
    print(json.dumps({"socket": os.path.abspath(socket)}), flush=True)
    server.serve_forever()
