"""The 15 features of the view card-risk by another engine, on one thread: windows.py ENGINE TRANSACTIONS OUT.

Prints seconds and version as JSON; writes the features to OUT as 32-bit floats, row by row in the file's order.
Reading the file and fetching the result are not timed: both sides begin and end with columns in memory.
"""

import json
import os
import sys
import time

WINDOWS = (1, 7, 30)
DELAY = 7
DAY = 86_400_000_000


def with_polars(path):
    os.environ["POLARS_MAX_THREADS"] = "1"
    import polars as pl

    rows = pl.read_parquet(path, columns=["event_time", "customer_id", "terminal_id", "amount", "fraud"])

    def windows(value, function, entity, days):
        rolling = getattr(pl.col(value), f"rolling_{function}_by")
        return rolling("event_time", window_size=f"{days}d").over(entity)

    begin = time.perf_counter()
    event_time = pl.col("event_time")
    # A delayed window is the difference of two that end now; sums of whole numbers lose nothing by it.
    parts = [(event_time.dt.weekday() >= 6).alias("weekend"), (event_time.dt.hour() <= 6).alias("night")]
    for days in WINDOWS:
        parts.append(windows("one", "sum", "customer_id", days).alias(f"count_{days}"))
        parts.append(windows("amount", "mean", "customer_id", days).alias(f"mean_{days}"))
    for days in (DELAY, *(DELAY + days for days in WINDOWS)):
        parts.append(windows("one", "sum", "terminal_id", days).alias(f"payments_{days}"))
        parts.append(windows("label", "sum", "terminal_id", days).alias(f"frauds_{days}"))
    named = rows.with_columns(pl.lit(1, pl.Int64).alias("one"), pl.col("fraud").cast(pl.Int64).alias("label"))
    named = named.with_columns(parts)
    features = [pl.col("amount"), pl.col("weekend"), pl.col("night")]
    for days in WINDOWS:
        features += [pl.col(f"count_{days}"), pl.col(f"mean_{days}")]
    for days in WINDOWS:
        payments = pl.col(f"payments_{DELAY + days}") - pl.col(f"payments_{DELAY}")
        frauds = pl.col(f"frauds_{DELAY + days}") - pl.col(f"frauds_{DELAY}")
        share = pl.when(payments > 0).then(frauds / payments).otherwise(0.0)
        features += [payments.alias(f"terminal_count_{days}"), share.alias(f"terminal_share_{days}")]
    table = named.select([feature.cast(pl.Float32) for feature in features])
    seconds = time.perf_counter() - begin
    return seconds, pl.__version__, table.to_numpy()


def with_duckdb(path):
    import duckdb
    import numpy as np

    database = duckdb.connect()
    database.execute("SET threads = 1")
    # It would go to standard output.
    database.execute("SET enable_progress_bar = false")
    database.execute(
        "CREATE TABLE payments AS SELECT file_row_number AS place, event_time::TIMESTAMP AS event_time, customer_id,"
        " terminal_id, amount, fraud::INTEGER AS label FROM read_parquet(?, file_row_number = true)",
        [path],
    )
    features = [
        "amount::FLOAT AS f0",
        "(isodow(event_time) >= 6)::INTEGER::FLOAT AS f1",
        "(hour(event_time) <= 6)::INTEGER::FLOAT AS f2",
    ]
    windows = []
    # RANGE has both ends inside; a window of w days is (t - w, t].
    for days in WINDOWS:
        start = f"INTERVAL {days * DAY - 1} MICROSECONDS PRECEDING"
        frame = f"PARTITION BY customer_id ORDER BY event_time RANGE BETWEEN {start} AND CURRENT ROW"
        windows.append(f"c{days} AS ({frame})")
        features.append(f"(count(*) OVER c{days})::FLOAT AS f{len(features)}")
        features.append(f"(avg(amount) OVER c{days})::FLOAT AS f{len(features)}")
    for days in WINDOWS:
        start = f"INTERVAL {(days + DELAY) * DAY - 1} MICROSECONDS PRECEDING"
        end = f"INTERVAL {DELAY * DAY} MICROSECONDS PRECEDING"
        frame = f"PARTITION BY terminal_id ORDER BY event_time RANGE BETWEEN {start} AND {end}"
        windows.append(f"t{days} AS ({frame})")
        features.append(f"(count(*) OVER t{days})::FLOAT AS f{len(features)}")
        features.append(f"coalesce(avg(label) OVER t{days}, 0)::FLOAT AS f{len(features)}")
    query = f"CREATE TABLE features AS SELECT place, {', '.join(features)} FROM payments WINDOW {', '.join(windows)}"
    begin = time.perf_counter()
    database.execute(query)
    seconds = time.perf_counter() - begin
    columns = database.execute("SELECT * EXCLUDE (place) FROM features ORDER BY place").fetchnumpy()
    return seconds, duckdb.__version__, np.column_stack(list(columns.values()))


engine, transactions, out = sys.argv[1:4]
seconds, version, table = {"polars": with_polars, "duckdb": with_duckdb}[engine](transactions)
table.astype("<f4").tofile(out)
print(json.dumps({"seconds": seconds, "version": version, "rows": len(table)}))
