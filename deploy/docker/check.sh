#!/bin/sh
# Does the stack that docker compose has started do what it is for?
#
#   docker compose up --build --wait && deploy/docker/check.sh
#
# Looks at every container (not root, nothing to write to but /tmp, only its own packages), migrates once more, then runs the
# end-to-end tests against the stack with a new key. PYTHON may name an interpreter with the development environment;
# otherwise .venv is used, and made if it is not there.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || make setup
stack=$(mktemp)
trap 'rm -f "$stack"' EXIT

fail() { echo "check: $*" >&2; exit 1; }

in_container() { docker compose exec -T "$@"; }

distributions() { # compose service: one name per line, as PEP 503 writes them
    in_container "$1" python -c '
import re
from importlib.metadata import distributions
print(*sorted(re.sub(r"[-_.]+", "-", found.name).lower() for found in distributions()), sep="\n")'
}

allowed() { # folder of services/, further packages of ours: what its image may hold
    sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' "services/$1/requirements.lock"
    shift
    printf 'holdfast-%s\n' common "$@"
}

check_container() { # compose service, folder of services/, further packages of ours
    service=$1 folder=$2
    shift
    [ "$(in_container "$service" id -u)" != 0 ] || fail "$service runs as root"
    for place in / /opt/holdfast /home /var/tmp; do
        ! in_container "$service" touch "$place/written" 2>/dev/null || fail "$service can write to $place"
    done
    in_container "$service" touch /tmp/written || fail "$service cannot write to /tmp"
    distributions "$service" | grep -Fqx "holdfast-$folder" || fail "$service does not hold holdfast-$folder"
    strangers=$(allowed "$folder" "$@" >"$stack"; distributions "$service" | grep -Fvx -f "$stack" | paste -sd" " - || true)
    [ -z "$strangers" ] || fail "$service holds packages that are not its own: $strangers"
    echo "$service: not root, read-only, its own $(distributions "$service" | wc -l) packages"
}

address_of() { docker compose port "$1" "$2"; }

check_container ingest ingest
check_container processor processor example-github-activity example-demo-shop example-flask-shop
check_container maintenance maintenance
check_container scheduler maintenance
check_container ws-gateway ws-gateway
! distributions ws-gateway | grep -Ex 'flask|sqlalchemy|psycopg2.*|alembic|dramatiq|periodiq' || fail "ws-gateway is to have Redis only"

docker compose run --rm -T migrate || fail "a second migration does not succeed"

key=$(docker compose run --rm -T migrate python -m holdfast.storage keys create \
    --tenant check --name deploy/docker/check.sh --scope events:write --scope events:read)
cat >"$stack" <<END
{
  "ingest_url": "http://$(address_of ingest 8080)",
  "live_url": "ws://$(address_of ws-gateway 8090)/v1/live",
  "api_key": "$key"
}
END
"$python" -c "
from urllib.request import urlopen
from urllib.request import Request
shop = 'http://$(address_of ws-gateway 8090)/demo/'
assert b'holdfast-live' in urlopen(shop + 'demo.js', timeout=10).read()
assert b'topic' in urlopen(Request(shop + 'session', b'{}', {'Content-Type': 'application/json'}), timeout=10).read()" || fail "no demo"

HOLDFAST_E2E_STACK=$stack "$python" -m pytest -q tests/e2e/test_path.py
