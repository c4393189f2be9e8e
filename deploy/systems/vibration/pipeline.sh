#!/usr/bin/env bash
# From what sensor nodes recorded to a model that runs on them. `pipeline.sh --help` says how.
set -euo pipefail

help() {
    cat <<'END'
usage: pipeline.sh --lake DIR --kind TYPE --version N --key FILE --sign FILE…
                   [--from TIME] [--to TIME] [--node NAME] [--rollback N]
                   [--work DIR] [--agent ADDRESS=NODE]…

Learns the anomaly model of sensor nodes from healthy windows of the hub's lake,
publishes it in the signed repository, and orders it to the nodes:

  1 learn    vibration train         windows of the lake -> signed image
  2 draft    cloud-hub keys draft    the role `nodes` names the image as well
  3 sign     cloud-hub keys sign     with the key of that role
  4 publish  cloud-hub keys apply    the hub has the image, devices believe it
  5 order    POST …/update           each agent fetches and verifies it, and
                                     brings it to its node

  --lake DIR       folder of the hub's lake, such as data/lake
  --kind TYPE      type of the nodes, such as mps2
  --version N      version of the image, higher than any before
  --key FILE       secret key that signs images for nodes; its public half was
                   built into them (NODE_KEY)
  --sign FILE      secret key of the role `nodes`: targets.key until it has one
                   of its own; may be given several times
  --from, --to     learn from this time on, up to that: UTC microseconds; the
                   machines were healthy
  --node NAME      learn only from this node
  --rollback N     rollback index; the version unless given
  --work DIR       for image and metadata; ./nodes-TYPE-vN unless given
  --agent A=NODE   a node that takes it now, by the address of its agent's local
                   API: unix:PATH or http://HOST:PORT. Without it the last line
                   says what to call beside the agents; begin with one group

Programs, in PATH: vibration and cloud-hub, and curl for --agent. Which hub, and
who asks: CLOUD_HUB_URL, CLOUD_HUB_CA, CLOUD_HUB_TOKEN_FILE (an admin's).
If the key for --sign is not on this machine, leave it out: the draft is made,
and the last lines say how to go on. What stopped in the middle is begun again
with the same arguments: a version that is published already is only ordered.
END
}

fail() {
    printf 'pipeline.sh: %s\n' "$*" >&2
    exit 1
}
wrong() {
    printf 'pipeline.sh: %s; see pipeline.sh --help\n' "$*" >&2
    exit 2
}
step() { printf '\n%s\n' "$*"; }
by_hand() {
    step "5 order: for each node, beside its agent:"
    echo "curl --unix-socket STATE_DIR/agent.sock http://agent/v1/nodes/NODE/update -H 'content-type: application/json' -d '{\"version\":$version}'"
}

lake='' kind='' version='' key='' work='' signers=() agents=() chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        help
        exit 0
        ;;
    --lake | --kind | --version | --key | --sign | --from | --to | --node | --rollback | --work | --agent)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        case "$1" in
        --lake) lake="$2" ;;
        --kind) kind="$2" ;;
        --version) version="$2" ;;
        --key) key="$2" ;;
        --sign) signers+=(--key "$2") ;;
        --work) work="$2" ;;
        --agent) agents+=("$2") ;;
        *) chosen+=("$1" "$2") ;;
        esac
        shift 2
        ;;
    *) wrong "what is $1" ;;
    esac
done

# Everything that can be known to be wrong is said before anything is done.
[ -n "$lake" ] && [ -n "$kind" ] && [ -n "$version" ] && [ -n "$key" ] || wrong "--lake, --kind, --version and --key are needed"
[[ "$version" =~ ^[1-9][0-9]*$ ]] || wrong "--version $version is no whole number from 1 on"
[ -d "$lake" ] || fail "$lake is no folder; the lake is the folder lake in the hub's data"
[ -r "$key" ] || fail "the key $key cannot be read; cloud-hub keys new makes one"
needed=(vibration cloud-hub)
[ ${#agents[@]} -eq 0 ] || needed+=(curl)
for program in "${needed[@]}"; do
    command -v "$program" >/dev/null || fail "no program $program in PATH"
done
for agent in "${agents[@]}"; do
    [[ "$agent" =~ ^(unix:.+|https?://.+)=[^=]+$ ]] || wrong "--agent $agent is not ADDRESS=NODE with an address unix:PATH or http://HOST:PORT"
done
[ ${#signers[@]} -gt 0 ] || [ ${#agents[@]} -eq 0 ] || wrong "--agent without --sign: nodes take what is published"

work="${work:-nodes-$kind-v$version}"
target="nodes/$kind/v$version.img"
image="$work/v$version.img"
carry="$work/carry"
mkdir -p "$work"

if [ -e "$work/published" ]; then
    step "$target is published already ($work/published); learning, signing and publishing are left out"
else
    step "1 learn: a model from the healthy windows in $lake"
    vibration train --lake "$lake" --kind "$kind" --version "$version" --key "$key" --out "$image" "${chosen[@]}" ||
        fail "nothing was learnt, and nothing published"

    step "2 draft: $target in the role nodes"
    rm -rf "$carry"
    cloud-hub keys draft nodes --file "$target=$image" --out "$carry" || fail "the hub gave no draft; nothing is published"
    # The version before this one lies beside it, to be compared with.
    draft="$(find "$carry" -name '*.nodes.json' | sort -V | tail -n 1)"
    [ -n "$draft" ] || fail "there is no draft of the role nodes in $carry"
    if [ ${#signers[@]} -eq 0 ]; then
        step "not signed: carry $carry to the key of the role nodes, there: cloud-hub keys sign $draft --key FILE"
        echo "and then here: cloud-hub keys apply $draft --content $image"
        by_hand
        exit 0
    fi

    step "3 sign"
    cloud-hub keys sign "$draft" "${signers[@]}" || fail "$draft is not signed; nothing is published"

    step "4 publish"
    cloud-hub keys apply "$draft" --content "$image" || fail "the hub did not take $draft; nothing is published"
    printf '%s\n' "$draft" >"$work/published"
fi

if [ ${#agents[@]} -eq 0 ]; then
    by_hand
    exit 0
fi
refused=0
for agent in "${agents[@]}"; do
    address="${agent%=*}" node="${agent##*=}"
    step "5 order: $node takes version $version"
    where=("$address/v1/nodes/$node/update")
    [[ "$address" == unix:* ]] && where=(--unix-socket "${address#unix:}" "http://agent/v1/nodes/$node/update")
    # What the agent says of an order that it refuses is worth more than the code alone.
    if ! answer="$(curl --silent --show-error --fail-with-body --max-time 120 -H 'content-type: application/json' \
        -d "{\"version\":$version}" "${where[@]}")"; then
        printf 'pipeline.sh: the agent at %s does not bring it to %s: %s\n' "$address" "$node" "${answer:-no answer}" >&2
        refused=$((refused + 1))
        continue
    fi
    printf '%s\n' "$answer"
done
[ "$refused" -eq 0 ] || fail "$refused of ${#agents[@]} nodes were not given version $version; the same command again orders it once more"
step "the nodes try it and go back by themselves unless their self-test passes: edge-agent status, cloud-hub device show"
