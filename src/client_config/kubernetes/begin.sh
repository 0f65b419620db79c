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

# Which certificates a file of a registry's directory is to name for the mirror: those of the file from before, or else those that are in the
# directory of the mirror.
certificates() {
  named=
  if is_ours "$certs/$1/hosts.toml"; then
    named=$(awk -v mirror='[host."@URL@"]' '
      { gsub(/^[ \t]+|[ \t]+$/, "") }
      /^\[/ { here = $0 == mirror }
      here && /^(ca|client)[ \t]*=.*["\]]$/ { print }' "$certs/$1/hosts.toml")
  fi
  # One that is named and is not there has every pull fail.
  for path in $(printf '%s\n' "$named" | grep -o '"[^"]*"' | tr -d '"'); do
    [ -f "$path" ] || [ -f "$certs/$1/$path" ] || named=
  done
  own="$certs/@AUTHORITY@"
  if [ -z "$named" ]; then
    [ ! -f "$own/ca.crt" ] || echo "ca = \"$own/ca.crt\""
    if [ -f "$own/client.cert" ] && [ -f "$own/client.key" ]; then
      echo "client = [[\"$own/client.cert\", \"$own/client.key\"]]"
    fi
  else
    printf '%s\n' "$named"
  fi
}

# The same file with them, where it is about the mirror.
with_certificates() {
  names=$(certificates "$1")
  while IFS= read -r line; do
    case $line in
      *'@CERTIFICATES@') [ -z "$names" ] || printf '%s\n' "$names" | sed "s/^/${line%'@CERTIFICATES@'}/" ;;
      *) printf '%s\n' "$line" ;;
    esac
  done
}

# What a file says, but for comments and the certificates that it may name.
says() {
  sed -E -e 's/^[[:blank:]]+//' -e 's/[[:blank:]]+$//' -e '/^(#|$)/d' -e '/^(ca|client)[[:blank:]]*=/d' "$1"
}

# In one step, and never over a file that is not from here.
place() {
  placed="$placed /$1/"
  [ "$task" != --remove ] || return 0
  file=$certs/$1/hosts.toml
  mkdir -p "$certs/$1"
  new=$(mktemp "$certs/$1/.hosts.toml.XXXXXX")
  with_certificates "$1" >"$new"
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
  elif [ -f "$file" ] && [ "$(says "$file")" = "$(says "$new")" ]; then
    rm "$new"
    [ -n "$task" ] || echo "unchanged $file"
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
