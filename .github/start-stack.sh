#!/bin/sh
# Start the services of .venv, as production starts them, in the background, against the PostgreSQL and the Redis that the
# HOLDFAST_* settings name; write .holdfast/ci/stack.json for the end-to-end tests once all are ready. Logs and process ids
# are beside it.
set -eu
cd "$(dirname "$0")/.."
out=.holdfast/ci
mkdir -p "$out"
python=$PWD/.venv/bin/python

start() { # name, port for metrics (0: none), module and arguments
    name=$1 port=$2
    shift 2
    HOLDFAST_METRICS_PORT=$port nohup "$python" -m "$@" >"$out/$name.log" 2>&1 </dev/null &
    echo $! >"$out/$name.pid"
}

wait_until_ready() { # name, address
    for _ in $(seq 60); do
        ! "$python" -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=2)" "$2/readyz" 2>/dev/null || return 0
        sleep 0.5
    done
    echo "$1 is not ready after 30 s:" >&2
    cat "$out/$1.log" >&2
    exit 1
}

"$python" -m holdfast.storage migrate
key=$("$python" -m holdfast.storage keys create --tenant ci --name ci --scope events:write --scope events:read)

start ingest 9101 holdfast.ingest
start processor 9102 holdfast.processor
start maintenance 9103 holdfast.maintenance worker
start scheduler 0 holdfast.maintenance scheduler
start ws-gateway 9104 holdfast.gateway
wait_until_ready ingest http://127.0.0.1:9101
wait_until_ready processor http://127.0.0.1:9102
wait_until_ready maintenance http://127.0.0.1:9103
wait_until_ready ws-gateway http://127.0.0.1:9104

cat >"$out/stack.json" <<END
{
  "ingest_url": "http://127.0.0.1:${HOLDFAST_INGEST_PORT:-8080}",
  "live_url": "ws://127.0.0.1:${HOLDFAST_GATEWAY_PORT:-8090}/v1/live",
  "api_key": "$key"
}
END
