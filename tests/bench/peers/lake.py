"""Messages to Parquet as a script behind a broker would do it: lake.py MESSAGES FOLDER MESSAGES_PER_GROUP.

MESSAGES has one JSON message per line, each with its columns. Per group: decode, one Arrow table, one Parquet file
(zstd), fsync, rename, fsync of the folder, one SQLite transaction with the numbers of the messages. No network, no
broker: what it would cost to bring the messages here is left out.
"""

import json
import os
import resource
import sqlite3
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq

messages, folder, group = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.makedirs(folder, exist_ok=True)
database = sqlite3.connect(os.path.join(folder, "catalog.db"), isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE batches (device TEXT, sequence INTEGER, file TEXT, PRIMARY KEY (device, sequence))")


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def commit(number, waiting):
    decoded = [json.loads(line) for line in waiting]
    tables = [pa.table(message["columns"]) for message in decoded]
    table = pa.concat_tables(tables)
    path = os.path.join(folder, f"{number}.parquet")
    pq.write_table(table, path + ".partial", compression="zstd")
    sync(path + ".partial")
    os.rename(path + ".partial", path)
    sync(folder)
    database.execute("BEGIN")
    rows = [(message["device"], message["sequence"], path) for message in decoded]
    database.executemany("INSERT INTO batches VALUES (?, ?, ?)", rows)
    database.execute("COMMIT")
    return len(table)


used = resource.getrusage(resource.RUSAGE_SELF)
idle = used.ru_utime + used.ru_stime
rows, files, waiting, seconds = 0, 0, [], 0.0
with open(messages) as lines:
    for line in lines:
        waiting.append(line)
        if len(waiting) == group:
            begin = time.perf_counter()
            rows += commit(files, waiting)
            seconds += time.perf_counter() - begin
            files, waiting = files + 1, []
if waiting:
    begin = time.perf_counter()
    rows += commit(files, waiting)
    seconds += time.perf_counter() - begin
    files += 1
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime - idle
peak = used.ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": rows, "files": files, "peak": peak, "version": pa.__version__}))
