"""Computes the 15 features of the payments in golden.csv from their definition, sharing nothing with the Rust code.

    python3 compute.py golden.csv > new.csv

Reads the first seven columns of the file (the payment) and writes them again with the features behind.
Windows: (t - w, t] per customer, the present payment included; (t - 7 d - w, t - 7 d] per terminal.
"""

import csv
import datetime
import sys

DAY = 86_400_000_000
PAYMENT = ["transaction_id", "event_time", "customer_id", "terminal_id", "fraud", "scenario", "amount"]


def inside(payments, upto, key, value, start, end):
    return [p for p in payments[: upto + 1] if p[key] == value and start < int(p["event_time"]) <= end]


def features(payments, at):
    payment = payments[at]
    time = int(payment["event_time"])
    moment = datetime.datetime.fromtimestamp(time // 1_000_000, datetime.timezone.utc)
    row = {"weekend": int(moment.isoweekday() > 5), "night": int(moment.hour <= 6)}
    for days in (1, 7, 30):
        own = inside(payments, at, "customer_id", payment["customer_id"], time - days * DAY, time)
        row[f"customer_count_{days}d"] = len(own)
        row[f"customer_mean_amount_{days}d"] = sum(float(p["amount"]) for p in own) / len(own)
        end = time - 7 * DAY
        there = inside(payments, at, "terminal_id", payment["terminal_id"], end - days * DAY, end)
        row[f"terminal_count_{days}d"] = len(there)
        row[f"terminal_fraud_share_{days}d"] = sum(int(p["fraud"]) for p in there) / max(len(there), 1)
    return row


def main():
    with open(sys.argv[1], newline="") as file:
        payments = [{name: row[name] for name in PAYMENT} for row in csv.DictReader(file)]
    rows = [payment | features(payments, at) for at, payment in enumerate(payments)]
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


main()
