#!/bin/sh
# Prints the Python that tests and demo are run with: the system's where it is new enough, else the one on PATH, so that
# one machine always gives the same.
for python in /usr/bin/python3 "$(command -v python3)"; do
    if [ -x "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$python"
        exit 0
    fi
done
echo "==> Py needs Python 3.11 or later, and neither /usr/bin/python3 nor python3 on PATH is one." >&2
exit 1
