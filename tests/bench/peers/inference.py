"""One prediction at batch 1 on one thread: inference.py GRAPH ROWS OUT WIDTH CALLS.

Prints the time of every call in nanoseconds as JSON; writes the outputs of all rows, in one batch, to OUT.
"""

import json
import sys
import time

import numpy as np
import onnxruntime as ort

graph, rows, out, width, calls = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
x = np.fromfile(rows, np.float32).reshape(-1, width)
session.run(None, {"features": x})[0].astype(np.float32).tofile(out)
times = []
for i in range(calls):
    row = x[i % len(x) : i % len(x) + 1]
    start = time.perf_counter_ns()
    session.run(None, {"features": row})
    times.append(time.perf_counter_ns() - start)
print(json.dumps({"version": ort.__version__, "nanoseconds": times}))
