#!/bin/sh
# Installs the MCP servers that only Node has into .cache/node, for the tests in tests/integration/test_mcp_node.py.
# Needs npm; without it those tests say why they are skipped. Run once; a second run does nothing.
set -eu
version=2026.8.31
folder="$(cd "$(dirname "$0")/.." && pwd)/.cache/node"
package=@modelcontextprotocol/server-everything

if ! command -v npm >/dev/null 2>&1; then
    echo "npm is missing: install Node 20 or newer to run the tests against $package" >&2
    exit 1
fi
if [ -e "$folder/version" ] && [ "$(cat "$folder/version")" = "$package@$version" ]; then
    exit 0
fi
mkdir -p "$folder"
npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --loglevel=error "$package@$version"
echo "$package@$version" >"$folder/version"
