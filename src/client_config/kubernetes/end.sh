
clear_away
if [ "$task" = --remove ]; then
  # hosts.toml is read at each pull: nothing is to be restarted.
  exit 0
fi

if [ ! -e "$config" ]; then
  cat >&2 <<END
setup-node: there is no $config, and by its defaults containerd does not find hosts.toml in $certs; make that file with the
version and the lines of one of these, and run this again:

@CONFIG_PATH@
END
  exit 1
fi

# What containerd makes of its settings; where there is no containerd, what the file says.
if command -v containerd >/dev/null; then
  settings=$(containerd --config "$config" config dump)
else
  settings=$(cat "$config")
fi
reads=$(printf '%s\n' "$settings" | awk -F = '
  /^[ \t]*\[/ { here = /io\.containerd\.(grpc\.v1\.cri|cri\.v1\.images).\.registry\]/ }
  here && $1 ~ /^[ \t]*config_path[ \t]*$/ { print $2; exit }' | tr -d "\"' \t")
if [ "$reads" != "$certs" ]; then
  cat >&2 <<END
setup-node: containerd looks for hosts.toml in "$reads" and not in $certs; merge into $config the one of
these that goes with its version, and run this again:

@CONFIG_PATH@
END
  exit 1
fi

# hosts.toml is read at each pull, and config.toml only at the start.
pid=$(systemctl show --property=MainPID --value containerd 2>/dev/null || echo 0)
if [ "${pid:-0}" -gt 0 ]; then
  started=$(($(date +%s) - $(ps -o etimes= -p "$pid")))
  if [ "$(stat -c %Y "$config")" -ge "$started" ]; then
    systemctl restart containerd
  fi
fi
exit "$left"
