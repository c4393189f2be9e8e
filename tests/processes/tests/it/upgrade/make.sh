#!/usr/bin/env bash
# Makes the state that programs of an earlier build leave: a hub and an enrolled device that were killed in the middle of
# their work. For a new fixture check the published commit out, build `cargo build -p tributary-processes --bin programs`
# there, and run
#     tests/processes/tests/it/upgrade/make.sh PROGRAMS PACKAGE tests/processes/tests/it/upgrade/COMMIT.tar.zst
# PACKAGE is any package file that the earlier hub takes, such as
#     TRIBUTARY_PACKAGE=$PWD/package.tpk cargo test -p tributary-processes recipe -- --ignored
set -euo pipefail
programs=$(realpath "$1") package=$(realpath "$2") out=$(realpath "$3")
view=$(realpath "$(dirname "$0")/../../../../../deploy/systems/fraud/view.toml")
work=$(mktemp -d) && cd "$work"
trap 'kill -9 ${hub:-} ${agent:-} 2>/dev/null || true; rm -rf "$work"' EXIT
# The ports are free in the network namespace of the test.
cat >hub.toml <<END
data_dir = "hub"
[gateway]
tls = "127.0.0.1:18883"
quic = "127.0.0.1:14568"
[api]
listen = "127.0.0.1:18443"
# A fixture is opened for years.
[identity]
device_lifetime = "3650d"
hub_lifetime = "3650d"
grace = "3650d"
END
cat >agent.toml <<END
device = "edge-1"
state_dir = "agent"
lines = ["card-fraud"]
view = "view.toml"
[hub]
url = "https://127.0.0.1:18443"
[link]
report_every = "1s"
resend_after = "2s"
reconnect_cap = "2s"
END
cp "$view" view.toml
export CLOUD_HUB_URL=https://127.0.0.1:18443 CLOUD_HUB_CA=hub/identity/authority.pem
export CLOUD_HUB_TOKEN_FILE=hub/keys/admin.token
until_() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*" >&2; exit 1; }
local_() { curl -sf --unix-socket agent/agent.sock "http://local$1" "${@:2}"; }
status() { local_ /v1/status | jq -e "$1"; }
# Events of these numbers, answered as durable; a source would believe that it is rid of them.
tell() {
    jq -n --argjson from "$1" --argjson to "$2" '[range($from; $to) | {id: "old-\(.)", time: (1767571200000000 + . * 1000000),
        entities: {customer_id: (. % 7), terminal_id: (. % 3)}, values: {amount: 12.5}}]' |
        local_ '/v1/events?durable=true' -H 'content-type: application/json' --data-binary @- |
        jq -er '.results[] | select(.durable) | .id' >>promised
}
"$programs" hub serve --config hub.toml >hub.log 2>&1 & hub=$!
until_ test -s hub/addresses.json
until_ "$programs" hub device list
# Before anybody enrols: enrolment brings the root of trust.
"$programs" hub keys init --line card-fraud --out offline-keys --life 3650d
token=$("$programs" hub token create --uses 1 --expires 1h | tr ' ' '\n' | grep '^tributary-enrol')
"$programs" agent enroll --config agent.toml --hub "$CLOUD_HUB_URL" --token "$token"
"$programs" agent run --config agent.toml >agent.log 2>&1 & agent=$!
until_ status '.hub.connected'
tell 0 40
until_ status '.outbox.batches == 0 and .events.accepted == 40'
"$programs" hub view add view.toml
"$programs" hub line set card-fraud --view card-risk
"$programs" hub model upload card-fraud "$package"
"$programs" hub model publish card-fraud 1
"$programs" hub rollout start card-fraud 1 --strategy all
for number in $(seq 0 40); do
    tell $((100 + number * 5)) $((105 + number * 5))
    status '.lines[0].committed == 1 and .lines[0].state == "Committed"' >/dev/null && break
    sleep 0.5
done
status '.lines[0].committed == 1' || { status .lines; tail agent.log; exit 1; }
kill -9 $hub; wait $hub 2>/dev/null || true
# The hub is away: these wait in the outbox, and some not even in a batch, when the power goes.
tell 1000 1040
sleep 2
tell 1040 1045
kill -9 $agent; wait $agent 2>/dev/null || true
rm -f hub/lock agent/agent.sock
"$programs" hub --version >made-by
tar --sort=name -c hub.toml agent.toml view.toml promised made-by hub agent | zstd -19 -q -f -o "$out"
ls -l "$out"; wc -l promised
