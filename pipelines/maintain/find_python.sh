#!/bin/sh
# Print the Python to work with: the environment's own, or the newest of 3.11 to 3.14 on PATH or in pyenv that can make
# environments. Prints nothing where there is none.
fits='import sys, venv, ssl; assert (3, 11) <= sys.version_info[:2] <= (3, 14)'
command -v uv >/dev/null 2>&1 || fits="$fits; import ensurepip"
works() { "$1" -c "$fits" 2>/dev/null; }

if works .venv/bin/python; then echo .venv/bin/python; exit; fi
for minor in 14 13 12 11; do
    for python in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python; do
        if works "$python"; then echo "$python"; exit; fi
    done
done
if works python3; then echo python3; fi
