#!/usr/bin/env bash
# Create .venv with exactly the locked versions; seconds when nothing has changed.
# The lock is complete, so nothing is resolved here (--no-deps).
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then build=gpu; else build=cpu; fi
lock=requirements/$build.txt
stamp=.venv/.stamp
wanted=$(cat "$lock" pyproject.toml scripts/make_env.sh | sha256sum | cut -c1-16)-$build
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

python=${PYTHON:-python3}
"$python" - <<'CHECK' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(f"make env: {sys.executable} is Python {sys.version.split()[0]}; "
             "the lock needs 3.11 or 3.12. Set PYTHON=/path/to/python3.11 and try again.")
CHECK
echo "make env: installing the $build lock into .venv (about 4 GB)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null

# uv is many times faster; pip does the same work where uv cannot be had.
uv=$(command -v uv || true)
if [ -z "$uv" ] && .venv/bin/python -m pip install -q uv 2>/dev/null; then uv=.venv/bin/uv; fi
if [ -n "$uv" ]; then
  # CPU wheels of torch lie beside the package index: a folder named by PIP_FIND_LINKS where
  # that is set, PyTorch's own CPU index otherwise.
  if [ "$build" = gpu ]; then extra=(); elif [ -n "${PIP_FIND_LINKS:-}" ]; then
    extra=(--find-links "$PIP_FIND_LINKS"); else extra=(--torch-backend cpu); fi
  "$uv" pip install -q --python .venv/bin/python --no-deps ${extra[@]+"${extra[@]}"} -r "$lock"
  "$uv" pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
else
  .venv/bin/python -m pip install -q --no-deps -r "$lock"
  .venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
fi
echo "$wanted" > "$stamp"
