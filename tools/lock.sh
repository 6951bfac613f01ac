#!/bin/sh
# Compile every requirements.lock, or with --check say which are stale.
# One resolution (the development lock) constrains all the others, so versions agree between services.
# No index lines and no download addresses: the ordinary clients use their own configuration.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
out=.
[ "${1:-}" = --check ] && out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT
own=""
for member in libs/common libs/client services/* deploy/local examples/*; do
    own="$own --no-emit-package $(sed -n 's/^name = "\(.*\)"/\1/p' "$member/pyproject.toml" | head -1)"
done
compile() { # [-p python] lock-path arguments...
    python=3.11
    [ "$1" != -p ] || { python=$2; shift 2; }
    lock=$1; shift
    mkdir -p "$out/$(dirname "$lock")"
    [ "$out" = . ] || cp "$lock" "$out/$lock"    # keep the pinned versions; only a changed requirement moves them
    # shellcheck disable=SC2086
    "$uv" pip compile --quiet --universal --python-version "$python" --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links $own ${UPGRADE:+--upgrade} --output-file "$out/$lock" "$@"
    [ "$out" = . ] || cmp -s "$lock" "$out/$lock" || { echo "$lock is stale: run 'make locks' and commit the result" >&2; stale=1; }
}
stale=0
compile requirements-dev.lock --all-extras --group dev libs/common/pyproject.toml libs/client/pyproject.toml \
    services/ingest/pyproject.toml services/processor/pyproject.toml services/maintenance/pyproject.toml \
    services/ws-gateway/pyproject.toml deploy/local/pyproject.toml examples/github-activity/pyproject.toml \
    examples/demo-shop/pyproject.toml examples/flask-shop/pyproject.toml
for service in ingest processor maintenance ws-gateway; do
    compile services/$service/requirements.lock -c requirements-dev.lock services/$service/pyproject.toml
done
compile docs/requirements.lock -c requirements-dev.lock docs/requirements.in
compile tests/browser/requirements.lock -c requirements-dev.lock tests/browser/requirements.in
# What Holdfast is measured beside has environments of its own: nothing of it runs in Holdfast's.
compile bench/peers/requirements.lock bench/peers/requirements.in
compile -p 3.12 bench/peers/oban/requirements.lock bench/peers/oban/requirements.in
exit $stale
