#!/bin/sh
# The CPython interpreters (3.11 to 3.14) of this machine, one path a line and each minor version once.
# A candidate is run before it is believed: a pyenv shim can stand on PATH and not work.
#   interpreters.sh first    the one that make uses: the first on PATH able to make environments
#   interpreters.sh all      every one, oldest first
set -u

probe='
import importlib.util, os, sys, sysconfig
assert sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 14)
assert not sysconfig.get_config_var("Py_GIL_DISABLED")
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
complete = headers and importlib.util.find_spec("ensurepip") is not None
print("%d.%d" % sys.version_info[:2], "complete" if complete else "partial", os.path.realpath(sys.executable))
'

candidates() {
  for name in python3 python python3.11 python3.12 python3.13 python3.14; do
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
      [ -x "$folder/$name" ] && echo "$folder/$name"
    done
    IFS=$old_ifs
  done
  for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3; do
    [ -x "$path" ] && echo "$path"
  done
}

# An interpreter without headers or ensurepip counts only where its version has no complete one.
found() {
  candidates | while read -r path; do
    "$path" -I -c "$probe" </dev/null 2>/dev/null
  done | awk '{ order[$1] = order[$1] ? order[$1] : NR }
    !($1 in best) || (state[$1] == "partial" && $2 == "complete") { best[$1] = $3; state[$1] = $2 }
    END { for (v in best) print v, state[v], order[v], best[v] }'
}

case "${1:-all}" in
  first) found | sort -k2,2 -k3,3n | awk 'NR == 1 { print $4 }' ;;
  all) found | sort -t. -k2,2n | awk '{ print $4 }' ;;
  *) echo "usage: interpreters.sh first|all" >&2; exit 2 ;;
esac
