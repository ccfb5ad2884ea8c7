#!/bin/sh
# Makes sure of a Chromium for the tests of TaskFlow's live board: installs it where that is possible,
# else fails with the command to run. Does nothing when there is one.
set -eu

for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "The tests need Chromium; installing it"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium
  exit 0
fi
echo "The tests of the live board need Chromium, which cannot be installed here." >&2
echo "Debian and Ubuntu: sudo apt-get install chromium" >&2
exit 1
