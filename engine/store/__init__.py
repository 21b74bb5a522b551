"""The database: tables, connections, group commit, and one module of queries per aggregate."""
