"""The bridge to MCP servers: connections, the catalogue of their tools, calls. The only home of the `mcp` library."""
