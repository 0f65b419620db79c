set -eu

usage() {
  cat <<'END'
Run it as root on a node, or in the build of a node's image. It may be run again at any time:
  sh setup-node.sh            puts the files in place, and tells which are left from routes that are gone
  sh setup-node.sh --prune    removes those, too
  sh setup-node.sh --remove   removes all files from here, and does nothing else
END
}

# Elsewhere with k3s and RKE2: below /var/lib/rancher.
certs=${CERTS_D:-/etc/containerd/certs.d}
config=${CONTAINERD_CONFIG:-/etc/containerd/config.toml}
task=${1-}
placed=
left=0

case $task in
  '' | --prune | --remove) ;;
  -h | --help)
    usage
    exit 0
    ;;
  *)
    echo "setup-node: $task is neither --prune nor --remove; --help tells what they do" >&2
    exit 2
    ;;
esac

is_ours() {
  [ -f "$1" ] && [ ! -L "$1" ] && head -n 2 "$1" | grep -q '^@MARKER@'
}

# In one step, and never over a file that is not from here.
place() {
  placed="$placed /$1/"
  [ "$task" != --remove ] || return 0
  file=$certs/$1/hosts.toml
  mkdir -p "$certs/$1"
  new=$(mktemp "$certs/$1/.hosts.toml.XXXXXX")
  cat >"$new"
  chmod 0644 "$new"
  # A link is never made over a file, so one that comes meanwhile stays.
  if [ ! -e "$file" ] && [ ! -L "$file" ] && ln "$new" "$file"; then
    rm "$new"
    echo "wrote $file"
  elif is_ours "$file"; then
    if [ "$(cat "$file")" != "$(cat "$new")" ]; then
      echo "wrote $file"
    elif [ -z "$task" ]; then
      echo "unchanged $file"
    fi
    mv "$new" "$file"
  else
    echo "setup-node: $file was not written from here and is left as it is; merge this into it, each key once:" >&2
    # Without the line by which a file is known as one from here.
    sed '/^@MARKER@/d' "$new" >&2
    rm "$new"
    left=1
  fi
}

# What is left from routes that are gone; with --remove, everything. A directory goes if nothing else is in it.
clear_away() {
  for file in "$certs"/*/hosts.toml; do
    directory=${file%/*}
    if [ -L "$directory" ] || ! is_ours "$file"; then
      continue
    fi
    if [ "$task" != --remove ]; then
      case $placed in *"/${directory##*/}/"*) continue ;; esac
    fi
    if [ -z "$task" ]; then
      echo "setup-node: $file is left from a route that is gone, and the proxy refuses the pulls that it sends here: --prune removes it" >&2
    else
      rm "$file"
      rmdir "$directory" 2>/dev/null || true
      echo "removed $file"
    fi
  done
}
