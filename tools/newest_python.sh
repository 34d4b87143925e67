#!/usr/bin/env bash
# Run the quick tests on a newer Python than this machine has: in a Debian unstable of its own, in a temporary folder.
#
#   sudo tools/newest_python.sh                                     what `make check` runs, on Python 3.14
#   sudo tools/newest_python.sh .venv/bin/scalelab book             the whole book
#   sudo PYTHON=python3.15 tools/newest_python.sh                   another version that Debian unstable has
#
# It tests what is committed. It needs Debian, root, the packages debootstrap and git, and 3 GB in TMPDIR. Packages come
# from where this machine's apt and pip take theirs. When it ends, so do its processes and mounts, and the folder goes.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHON="${PYTHON:-python3.14}"

fail() {
  echo "$1" >&2
  exit 1
}

# In namespaces of its own for processes and mounts: make the system in a folder, and run a command in it.
inside() {
  local root="$1" mirror="$2" file
  shift 2
  debootstrap --variant=minbase --include="ca-certificates,git,make,procps,$PYTHON,$PYTHON-venv" sid "$root" "$mirror" \
    > "$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; fail "debootstrap has failed; its last lines are above"; }
  # The way to the network, and to the packages.
  for file in /etc/hosts /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/uv/uv.toml \
    "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" "$HOME/.config/uv/uv.toml"; do
    if [ -f "$file" ]; then
      mkdir -p "$root$(dirname "$file")"
      cp -L --remove-destination "$file" "$root$file"
    fi
  done
  git clone --quiet --no-hardlinks . "$root/course"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs tmpfs "$root/dev/shm"
  echo "Debian unstable with $PYTHON: made in $SECONDS s"
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
  chroot "$root" bash -euc 'cd /course; make .venv/.developers > /dev/null 2> /tmp/make.log || { tail /tmp/make.log >&2; exit 1; }'
  echo "Its environment: made by $SECONDS s"
  chroot "$root" bash -euc 'cd /course; exec "$@"' bash "$@"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
  exit
fi

[ "$#" -gt 0 ] || set -- .venv/bin/scalelab test --quick
for program in apt-get debootstrap git unshare; do
  command -v "$program" > /dev/null || fail "Expected $program on PATH; it is not there. On Debian: apt-get install $program"
done
[ "$(id -u)" = 0 ] || fail "Expected root, which debootstrap and chroot take; got user $(id -un). Run it with sudo."
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | sed -n 1p)"
[ -n "$mirror" ] || fail "Expected a mirror of Debian in apt's lists; found none: apt-get update"

root="$(mktemp -d)"
child=""
finish() {
  [ -z "$child" ] || kill -KILL "$child" 2> /dev/null || true # and with it all that runs in its namespace
  wait 2> /dev/null
  rm -rf --one-file-system "$root" "$root.log"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0
unshare --mount --pid --fork --kill-child --mount-proc bash "tools/$(basename "$0")" --inside "$root" "$mirror" "$@" < /dev/null &
child=$!
wait "$child" || status=$?
child=""
echo "$PYTHON: exit status $status after $SECONDS s"
exit "$status"
