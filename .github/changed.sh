#!/bin/sh
# Which members does a change concern?    .github/changed.sh BASE >>"$GITHUB_OUTPUT"
#
# Prints "code=true|false" (anything but documents changed) and "members=[{member, python}, …]", the jobs to run. A member is
# concerned when its folder changed, or something that it is built on; without a usable BASE (a new branch) all are.
set -eu
cd "$(dirname "$0")/.."
base=$1
all="common client ingest processor maintenance ws-gateway github-activity demo-shop flask-shop local"

if git cat-file -e "$base^{commit}" 2>/dev/null; then
    changed=$(git diff --name-only "$base"...HEAD)
else
    changed=everything
fi

concerns() { printf '%s\n' "$changed" | grep -Eq "$1"; }

members=""
# What everybody shares: the common library, the locks' constraints, the tools, the workflow.
if concerns '^(everything$|libs/common/|pyproject\.toml|requirements-dev\.lock|Makefile|tools/|\.github/)'; then
    members=$all
else
    ! concerns '^libs/client/' || members="$members client"
    for service in ingest processor maintenance; do
        ! concerns "^services/$service/" || members="$members $service"
    done
    # The published description of its protocol, and the browser client that its page has a copy of.
    ! concerns '^(services/ws-gateway/|libs/client-js/|docs/asyncapi\.yaml$|tests/contract/)' || members="$members ws-gateway"
    ! concerns '^(examples/|services/processor/)' || members="$members github-activity demo-shop flask-shop"
    ! concerns '^(deploy/local/|libs/client/|services/)' || members="$members local"
    # Every member's tests get their servers from deploy/local.
    ! concerns '^deploy/local/' || members=$all
fi

# Two documents are tested: their examples are run, every frame is held against them.
if concerns '^docs/(live\.md|asyncapi\.yaml)$' || printf '%s\n' "$changed" | grep -Evq '(^docs/|\.md$)'; then echo code=true; else echo code=false; fi

jobs=""
for member in $members; do
    # The images run 3.12; the library that all share, and the client that others install, run on every supported version.
    case $member in common | client) pythons="3.11 3.12 3.13" ;; *) pythons=3.12 ;; esac
    for python in $pythons; do
        jobs="$jobs${jobs:+,}{\"member\":\"$member\",\"python\":\"$python\"}"
    done
done
echo "members=[$jobs]"
